"""Clipping by the global norm: what `torch.nn.utils.clip_grad_norm_` holds for a moment, beside all gradients.

Norms are taken by `torch._foreach_norm`, CUDA's default: for the gradients of one dtype a norm each, and one fp32
number for every 65,536 elements of the largest of them, times their number (ATen/native/cuda/ForeachReduceOp.cu,
`foreach_tensor_norm_cuda_internal`; MultiTensorApply.cuh, kChunkSize). Gradients are scaled in place.
"""

from collections.abc import Iterable
from functools import lru_cache

from estimators.analytic.parameters import ParameterGroup
from estimators.analytic.tensors import rounded

CHUNK_ELEMENTS = 65536
SCALAR_BYTES = rounded(4)


def chunk_elements(sizes: Iterable[int]) -> int:
    """Elements of the fp32 buffer that the norms of gradients of one dtype go through.

    Args:
        sizes: elements of each gradient.
    """
    known = list(sizes)
    return len(known) * -(-max(known) // CHUNK_ELEMENTS)


@lru_cache(maxsize=4096)
def clipping_bytes(groups: tuple[ParameterGroup, ...]) -> int:
    """The most that clipping holds besides the gradients.

    Args:
        groups: all parameters; frozen ones have no gradient.
    """
    trained = [group for group in groups if group.trainable]
    found, norms = 0, 0
    for itemsize in dict.fromkeys(group.itemsize for group in trained):
        alike = [group for group in trained if group.itemsize == itemsize]
        count = sum(group.count for group in alike)
        buffer = rounded(4 * count * -(-max(group.numel for group in alike) // CHUNK_ELEMENTS))
        norms += SCALAR_BYTES * count
        found = max(found, buffer + norms)
    width = max(group.itemsize for group in trained)
    stacked = rounded(width * sum(group.count for group in trained))
    return max(found, norms + stacked + SCALAR_BYTES)
