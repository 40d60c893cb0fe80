"""Recomputing projectors: exact SVD, or subspace iteration from random vectors or from the previous projector.

All kinds find the leading R singular vectors of the gradient. With B the gradient, or its transpose, that has the
shorter side k as rows (k x M), these are the leading eigenvectors of A = B Bᵀ on the shorter side; vectors of the
longer side follow as Bᵀ Q. The two iterative kinds take l = R + 16 vectors Q and repeat

    Q = orth((A - shift) Q),   T = QᵀAQ

until Q is good enough, applying A twice where the spectrum is flat. Then T = V Λ Vᵀ (Rayleigh-Ritz) and Q V[:, :R] is
the basis: its columns come in the order of their singular values, aligned with the singular vectors (Adam is not
invariant under rotation: training notices). A is never formed, nor an fp32 copy of the gradient: `CHUNK_BYTES` of rows
are cast and multiplied at a time.

Good enough is known without the exact answer. Scale B to energy (squared Frobenius norm) 1. Then BᵀB is the sum of
what Q holds, of trace tr T, and of what it leaves, of trace 1 - tr T: by Ky Fan's inequality the R best directions hold
at most 1 - tr T more than the R best of Q. Where that bound stays large the spectrum is flat, directions are nearly as
good as one another, and the last pass is one that gains next to nothing. Between passes A is shifted by the mean of the
eigenvalues left out: that costs nothing, and sets the directions wanted apart from many others that are alike (dynamic
shifts: Feng, Yu, Xie, Tang, ACM TOMS 50(2), 2024).

The 16 extra vectors matter to a warm start as much as to a cold one (Halko, Martinsson, Tropp 2011): a gradient that
has turned since the last refresh is to R old vectors what it is to R random ones, and may have a leading direction that
they hardly hold. Without them the worst refresh of a small training run missed 0.17 % of the energy.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from galore_mem.optim.geometry import Side, effective_rank, scalar, sides

CHUNK_BYTES = 16 * 2**20
"""fp32 scratch for the block of gradient rows, and its product, that one chunk of a pass holds."""
OVERSAMPLING = 16
"""Directions beyond the rank."""
MAX_PASSES = 3
"""Reached by spectra nearly as flat as white noise; gradients mostly take one."""
TOLERANCE = 1e-3
"""Share of the energy held that the exact directions might hold beyond it, at most, when a pass is the last."""
LEAST_GAIN = 1e-3
"""Share of the energy held that a pass must have gained for another to follow."""
FLAT = 0.05
"""Share of the energy left out above which the next pass applies A twice: flat spectra lose no digits by it."""

Bases = dict[Side, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a refresh is asked for."""

    rank: int
    proj_type: str
    kind: str
    """`svd`, `randomized` or `subspace`."""
    seed: int
    """Start of the random vectors; the same seed gives the same bases."""
    norm: float
    """The gradient's Frobenius norm, positive and finite: dividing by it keeps squares within fp32."""


def frobenius_norm(gradient: Tensor) -> float:
    """Norm of a gradient in any dtype; also where squares leave fp32, which is summed again in fp64. 1 when traced."""
    single = torch.promote_types(gradient.dtype, torch.float32)
    norm = scalar(torch.linalg.vector_norm(gradient, dtype=single), 1.0)
    if 1e-12 < norm < math.inf:
        return norm
    return scalar(torch.linalg.vector_norm(gradient, dtype=torch.float64), 1.0)


def new_bases(gradient: Tensor, request: Request, previous: Mapping[Side, Tensor] | None) -> Bases:
    """Orthonormal bases for a gradient, in fp32.

    Args:
        gradient: (rows, columns), finite and not all zero.
        request: rank, side, kind and seed.
        previous: the bases in use, in any dtype, or None; only `subspace` starts from them.

    Returns:
        By side: `left` (rows, R), `right` (R, columns); possibly views of something larger.
    """
    wanted = sides((gradient.shape[0], gradient.shape[1]), request.proj_type)
    if request.kind == "svd":
        return _exact(gradient, request.rank, wanted)
    tall = gradient.shape[0] >= gradient.shape[1]
    short_side: Side = "right" if tall else "left"
    block = gradient.t() if tall else gradient
    short = _leading(block, request, previous if request.kind == "subspace" else None, short_side)
    bases: Bases = {}
    for side in wanted:
        columns = short if side == short_side else orthonormal(_transposed_product(block, short))
        bases[side] = columns if side == "left" else columns.t()
    return bases


def _exact(gradient: Tensor, rank: int, wanted: tuple[Side, ...]) -> Bases:
    left, _, right = torch.linalg.svd(gradient.float(), full_matrices=False)
    return {side: left[:, :rank] if side == "left" else right[:rank] for side in wanted}


def _leading(block: Tensor, request: Request, previous: Mapping[Side, Tensor] | None, short_side: Side) -> Tensor:
    """The leading eigenvectors of B Bᵀ as columns (k, R), ordered."""
    rank, scale = effective_rank((block.shape[0], block.shape[1]), request.rank), 1.0 / request.norm
    basis = _start(block, rank, request, previous, short_side)
    held, shift, applications = 0.0, 0.0, 1
    for remaining in reversed(range(MAX_PASSES)):
        for _ in range(applications):
            basis = _shifted_gram_product(block, basis, scale, shift)
        basis = orthonormal(basis)
        ritz = _compressed_gram(block, basis, scale)
        before, held = held, scalar(ritz.trace(), 1.0)
        if not remaining or _is_last(before, held, rank / basis.shape[1]):
            rotation = torch.linalg.eigh(ritz.neg_()).eigenvectors  # negated: the largest eigenvalue comes first
            del ritz
            return basis.mm(rotation[:, :rank])
        del ritz
        shift = max(0.0, 1.0 - held) / max(1, block.shape[0] - basis.shape[1])
        applications = 2 if 1.0 - held > FLAT else 1
    raise AssertionError("the last pass returns")


def _is_last(before: float, held: float, share: float) -> bool:
    """Whether another pass is not worth it.

    Args:
        before: energy that the vectors held before this pass, of 1.
        held: energy that they hold now.
        share: R / l; of l directions the R best hold at least so much.
    """
    return 1.0 - held <= TOLERANCE * share * held or held - before <= LEAST_GAIN * held


def _start(
    block: Tensor, rank: int, request: Request, previous: Mapping[Side, Tensor] | None, short_side: Side
) -> Tensor:
    """The previous basis, if any, on the shorter side, and random directions: fp32 columns (k, l)."""
    short, width = block.shape[0], min(block.shape[0], rank + OVERSAMPLING)
    start = torch.empty(short, width, device=block.device, dtype=torch.float32)
    known = 0
    if previous and short_side in previous:
        known = _take(start, previous[short_side] if short_side == "left" else previous[short_side].t(), rank)
    elif previous:
        ((side, basis),) = previous.items()
        columns = basis if side == "left" else basis.t()
        if columns.shape == (block.shape[1], rank):
            known = rank
            _product_(start[:, :rank], block, columns, 1.0 / request.norm)
    generator = torch.Generator(device=block.device).manual_seed(request.seed)
    start[:, known:].normal_(std=short**-0.5, generator=generator)
    return start


def _take(start: Tensor, columns: Tensor, rank: int) -> int:
    if columns.shape != (start.shape[0], rank):
        return 0
    start[:, :rank].copy_(columns)
    return rank


def orthonormal(columns: Tensor) -> Tensor:
    """Orthonormal columns by Householder QR, also where columns are dependent, as with fewer tokens than directions.

    Cholesky QR costs matrix products only, but gradients' images are dependent in fp32 as a rule, and then it fails.
    """
    basis: Tensor = torch.linalg.qr(columns).Q
    return basis


def chunk_columns(short: int, long: int, width: int) -> int:
    """Columns of B that one chunk holds: their fp32 copy and their product with `width` vectors."""
    return min(long, max(1, CHUNK_BYTES // (4 * (short + width))))


def _chunks(block: Tensor, width: int) -> Iterator[slice]:
    step = chunk_columns(block.shape[0], block.shape[1], width)
    return (slice(start, start + step) for start in range(0, block.shape[1], step))


def _shifted_gram_product(block: Tensor, vectors: Tensor, scale: float, shift: float) -> Tensor:
    """(scale B)(scale B)ᵀ `vectors` - shift * `vectors`: (k, l), through chunks of the longer side."""
    image = vectors.mul(-shift)
    for chunk in _chunks(block, vectors.shape[1]):
        _add_gram_product_(image, block[:, chunk].float(), vectors, scale)
    return image


def _add_gram_product_(image: Tensor, chunk: Tensor, vectors: Tensor, scale: float) -> None:
    image.addmm_(chunk, chunk.t().mm(vectors).mul_(scale), alpha=scale)


def _compressed_gram(block: Tensor, vectors: Tensor, scale: float) -> Tensor:
    """`vectors`ᵀ (scale B)(scale B)ᵀ `vectors`: (l, l), through chunks of the longer side."""
    width = vectors.shape[1]
    compressed = torch.zeros(width, width, device=block.device, dtype=torch.float32)
    for chunk in _chunks(block, width):
        _add_compressed_(compressed, block[:, chunk].float().t().mm(vectors).mul_(scale))
    return compressed


def _add_compressed_(compressed: Tensor, product: Tensor) -> None:
    compressed.addmm_(product.t(), product)


def _product_(image: Tensor, block: Tensor, vectors: Tensor, scale: float) -> None:
    """`image` = scale B `vectors`: (k, R) from (M, R), in fp32."""
    image.zero_()
    for chunk in _chunks(block, vectors.shape[1]):
        image.addmm_(block[:, chunk].float(), vectors[chunk].float(), alpha=scale)


def _transposed_product(block: Tensor, vectors: Tensor) -> Tensor:
    """Bᵀ `vectors`: (M, R) from (k, R), in fp32."""
    image = torch.empty(block.shape[1], vectors.shape[1], device=block.device, dtype=torch.float32)
    for chunk in _chunks(block, vectors.shape[1]):
        torch.mm(block[:, chunk].float().t(), vectors, out=image[chunk])
    return image
