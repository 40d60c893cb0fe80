"""Recomputing projectors: exact SVD, randomized, and warm-started subspace iteration.

All kinds approximate the leading R singular vectors of the gradient. With B the gradient, or its transpose, that has
the shorter side k as rows (k x M), these are the leading eigenvectors of A = B Bᵀ on the shorter side; vectors of the
longer side follow as Bᵀ Q. The two iterative kinds apply A to a block of l vectors, `passes` times:

    Y = A Q,   then Q = orth(Y);   in the last pass   T = QᵀY = V Λ Vᵀ,   Q = orth(Y V[:, :R])

which is block power iteration with a Rayleigh-Ritz rotation, so columns come out in the order of their singular values,
aligned with the singular vectors (Adam is not invariant under rotation: training notices). A is never formed, nor an
fp32 copy of the gradient: `CHUNK_BYTES` of rows are cast and multiplied at a time.

orth is Householder QR on a cold start, whose columns are nearly dependent. A warm start's are nearly orthogonal: two
rounds of Cholesky QR cost matrix products only, and give way to Householder where columns do turn out dependent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from galore_mem.optim.geometry import Side, effective_rank, scalar, sides

CHUNK_BYTES = 16 * 2**20
"""fp32 scratch for the block of gradient rows, and its product, that one chunk of a pass holds."""
OVERSAMPLING = 16
"""Extra directions of a cold start (Halko, Martinsson, Tropp 2011 advise 5 to 10); a warm start needs none."""
COLD_PASSES = 2
WARM_PASSES = 2

LEAST_PIVOT = 0.03
"""Distance of a unit column from the span of those before it, below which Cholesky QR would lose it in fp32 noise."""

Bases = dict[Side, Tensor]
Orthonormalisation = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a refresh is asked for."""

    rank: int
    proj_type: str
    kind: str
    """`svd`, `randomized` or `subspace`."""
    seed: int
    """Start of the random block; the same seed gives the same bases."""
    magnitude: float
    """Largest absolute element of the gradient, positive and finite: keeps squares within fp32."""


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
    short, orthonormal = _leading(block, request, previous, short_side)
    bases: Bases = {}
    for side in wanted:
        columns = short if side == short_side else orthonormal(_transposed_product(block, short))
        bases[side] = columns if side == "left" else columns.t()
    return bases


def _exact(gradient: Tensor, rank: int, wanted: tuple[Side, ...]) -> Bases:
    left, _, right = torch.linalg.svd(gradient.float(), full_matrices=False)
    return {side: left[:, :rank] if side == "left" else right[:rank] for side in wanted}


def _start(block: Tensor, request: Request, previous: Mapping[Side, Tensor] | None, short_side: Side) -> Tensor | None:
    """The previous basis on the shorter side as fp32 columns (k, R), or None for a cold start."""
    rank = effective_rank((block.shape[0], block.shape[1]), request.rank)
    if request.kind != "subspace" or not previous:
        return None
    if short_side in previous:
        basis = previous[short_side]
        columns = basis if short_side == "left" else basis.t()
        return columns.float() if columns.shape == (block.shape[0], rank) else None
    ((side, basis),) = previous.items()
    columns = basis if side == "left" else basis.t()
    if columns.shape != (block.shape[1], rank):
        return None
    return cholesky(_product(block, columns))


def _leading(
    block: Tensor, request: Request, previous: Mapping[Side, Tensor] | None, short_side: Side
) -> tuple[Tensor, Orthonormalisation]:
    """The leading eigenvectors of B Bᵀ as columns (k, R), ordered, and what made them orthonormal."""
    rank, scale = effective_rank((block.shape[0], block.shape[1]), request.rank), 1.0 / request.magnitude
    start = _start(block, request, previous, short_side)
    passes, orthonormal = (COLD_PASSES, householder) if start is None else (WARM_PASSES, cholesky)
    if start is None:
        start = _random_start(block, min(block.shape[0], rank + OVERSAMPLING), request.seed)
    for _ in range(passes - 1):
        image = _gram_product(block, start, scale)
        del start
        start = orthonormal(image)
        del image
    image = _gram_product(block, start, scale)
    ritz = start.t().mm(image)
    del start
    rotation = torch.linalg.eigh(ritz).eigenvectors[:, -rank:].flip(1)
    del ritz
    image = image.mm(rotation)
    del rotation
    return orthonormal(image), orthonormal


def _random_start(block: Tensor, width: int, seed: int) -> Tensor:
    generator = torch.Generator(device=block.device).manual_seed(seed)
    start = torch.randn(block.shape[0], width, generator=generator, device=block.device, dtype=torch.float32)
    return householder(start) if width == block.shape[0] else start


def householder(columns: Tensor) -> Tensor:
    """Orthonormal columns by QR, also where columns are dependent, as with fewer tokens than directions."""
    basis: Tensor = torch.linalg.qr(columns).Q
    return basis


def cholesky(columns: Tensor) -> Tensor:
    """Orthonormal columns by two rounds of Cholesky QR; changes `columns`."""
    columns.div_(torch.linalg.vector_norm(columns, dim=0).clamp_(min=torch.finfo(torch.float32).tiny))
    once = _cholesky_round(columns, None)
    twice = None if once is None else _cholesky_round(once, columns)
    return householder(columns) if twice is None else twice


def _cholesky_round(columns: Tensor, out: Tensor | None) -> Tensor | None:
    """Columns times L⁻ᵀ, where L Lᵀ is their Gram matrix; None where that is too near to singular."""
    factor, info = torch.linalg.cholesky_ex(columns.t().mm(columns))
    if scalar(info, 0.0) != 0.0 or not scalar(factor.diagonal().amin(), 1.0) > LEAST_PIVOT:
        return None
    result: Tensor = torch.linalg.solve_triangular(factor.t(), columns, upper=True, left=False, out=out)
    return result


def chunk_columns(short: int, long: int, width: int) -> int:
    """Columns of B that one chunk holds: their fp32 copy and their product with `width` vectors."""
    return min(long, max(1, CHUNK_BYTES // (4 * (short + width))))


def _gram_product(block: Tensor, vectors: Tensor, scale: float) -> Tensor:
    """(scale B)(scale B)ᵀ `vectors`: (k, l), through chunks of the longer side."""
    image = torch.zeros_like(vectors)
    step = chunk_columns(block.shape[0], block.shape[1], vectors.shape[1])
    for start in range(0, block.shape[1], step):
        _add_chunk(image, block[:, start : start + step], vectors, scale)
    return image


def _add_chunk(image: Tensor, chunk: Tensor, vectors: Tensor, scale: float) -> None:
    chunk = chunk.float()
    image.addmm_(chunk, chunk.t().mm(vectors).mul_(scale), alpha=scale)


def _product(block: Tensor, vectors: Tensor) -> Tensor:
    """B `vectors`: (k, R) from (M, R), in fp32."""
    image = torch.zeros(block.shape[0], vectors.shape[1], device=block.device, dtype=torch.float32)
    step = chunk_columns(block.shape[0], block.shape[1], vectors.shape[1])
    for start in range(0, block.shape[1], step):
        image.addmm_(block[:, start : start + step].float(), vectors[start : start + step].float())
    return image


def _transposed_product(block: Tensor, vectors: Tensor) -> Tensor:
    """Bᵀ `vectors`: (M, R) from (k, R), in fp32."""
    image = torch.empty(block.shape[1], vectors.shape[1], device=block.device, dtype=torch.float32)
    step = chunk_columns(block.shape[0], block.shape[1], vectors.shape[1])
    for start in range(0, block.shape[1], step):
        torch.mm(block[:, start : start + step].float().t(), vectors, out=image[start : start + step])
    return image
