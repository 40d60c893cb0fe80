"""Clipping by the global norm, as training loops do it, with what only CUDA's kernel holds."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from estimators.analytic.clipping import chunk_elements

MAX_NORM = 1.0
"""transformers' default."""


def clip_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Scale all gradients in place so that their global norm is at most `MAX_NORM`.

    On tensors that are not on a GPU, the buffer that CUDA's norms go through is made as well.
    """
    on_gpu = any(parameter.is_cuda for parameter in parameters)
    original = torch._foreach_norm
    if not on_gpu:
        torch._foreach_norm = _through_chunks(original)
    try:
        nn.utils.clip_grad_norm_(parameters, MAX_NORM, foreach=True)
    finally:
        torch._foreach_norm = original


def _through_chunks(original: Callable[..., Any]) -> Callable[..., Any]:
    def norms(tensors: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        elements = chunk_elements(tensor.numel() for tensor in tensors)
        buffer = tensors[0].new_empty(elements, dtype=torch.float32)
        found = original(tensors, *args, **kwargs)
        del buffer
        return found

    return norms
