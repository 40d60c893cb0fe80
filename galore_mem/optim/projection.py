"""Into the low-rank space and back: the two products of every GaLore step."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from galore_mem.optim.geometry import Side

Projectors = Mapping[Side, Tensor]
"""Orthonormal bases in the gradient's dtype: `left` (rows, R), `right` (R, columns)."""


def project(gradient: Tensor, projectors: Projectors) -> Tensor:
    """The gradient's coordinates in the low-rank space: LᵀG, GRᵀ, or LᵀGRᵀ.

    Args:
        gradient: (rows, columns).
        projectors: one basis, or two for `full`.

    Returns:
        A new tensor of the low-rank shape. `full` makes one more, of R times the smaller dimension.
    """
    left, right = projectors.get("left"), projectors.get("right")
    if left is not None and right is not None:
        if gradient.shape[0] >= gradient.shape[1]:
            return left.t().mm(gradient).mm(right.t())
        return left.t().mm(gradient.mm(right.t()))
    if left is not None:
        return left.t().mm(gradient)
    assert right is not None
    return gradient.mm(right.t())


def add_projected_(low: Tensor, matrix: Tensor, projectors: Projectors, *, alpha: float) -> None:
    """`low += alpha * project(matrix)`, without a temporary for one-sided projections."""
    left, right = projectors.get("left"), projectors.get("right")
    if left is not None and right is not None:
        low.add_(project(matrix, projectors), alpha=alpha)
    elif left is not None:
        low.addmm_(left.t(), matrix, alpha=alpha)
    elif right is not None:
        low.addmm_(matrix, right.t(), alpha=alpha)


def factors(low: Tensor, projectors: Projectors) -> tuple[Tensor, Tensor]:
    """Two matrices whose product is the full-size update: only `full` makes one, of R times the smaller dimension."""
    left, right = projectors.get("left"), projectors.get("right")
    if left is not None and right is not None:
        if left.shape[0] <= right.shape[1]:
            return left.mm(low), right
        return left, low.mm(right)
    if left is not None:
        return left, low
    assert right is not None
    return low, right


def land_(weight: Tensor, low: Tensor, projectors: Projectors, alpha: float, keep: float) -> None:
    """`weight = keep * weight + alpha * (low mapped back)`, in place and in one pass over the weight.

    Args:
        weight: (rows, columns), changed in place.
        low: the update in the low-rank space; its content is lost.
        projectors: the bases it was projected with.
        alpha: GaLore's scale.
        keep: 1 - lr * weight_decay, AdamW's decoupled decay.
    """
    if low.dtype == torch.bfloat16 and math.frexp(alpha)[0] == 0.5:
        # A power of two: exact. oneDNN's bf16 product takes a tenth longer with any alpha but 1.
        low.mul_(alpha)
        alpha = 1.0
    first, second = factors(low, projectors)
    weight.addmm_(first, second, beta=keep, alpha=alpha)


STOCHASTIC_CHUNK_BYTES = 4 * 2**20
"""fp32 rows that stochastic rounding holds at a time."""


def land_stochastic_(
    weight: Tensor, low: Tensor, projectors: Projectors, alpha: float, keep: float, generator: torch.Generator
) -> None:
    """As `land_`, with the sum taken in fp32 and rounded to bf16 up or down with the probabilities of its distance.

    Rows are handled in blocks of `STOCHASTIC_CHUNK_BYTES`, so no full-size fp32 copy exists.
    """
    first, second = factors(low, projectors)
    second = second.float()
    rows = max(1, STOCHASTIC_CHUNK_BYTES // (4 * weight.shape[1]))
    for start in range(0, weight.shape[0], rows):
        block = weight[start : start + rows]
        exact = block.float()
        exact.addmm_(first[start : start + rows].float(), second, beta=keep, alpha=alpha)
        block.copy_(round_stochastically_(exact, generator))


def round_stochastically_(exact: Tensor, generator: torch.Generator) -> Tensor:
    """fp32 values that bf16 holds exactly, above or below the given ones; unbiased. Changes `exact` in place.

    bf16 is fp32 without its lower 16 bits: adding a uniform 16-bit integer and cutting them off carries into the upper
    half with exactly the right probability.
    """
    bits = exact.view(torch.int32)
    noise = torch.empty_like(bits).random_(0, 1 << 16, generator=generator)
    finite = exact.isfinite()
    bits.add_(noise.mul_(finite)).bitwise_and_(-(1 << 16))
    return exact
