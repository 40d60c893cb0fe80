"""Scratch of this package's GaLore: what a refresh and a step hold for a moment, to the byte.

Figures mirror the operators of `galore_mem.optim` in their order (refresh.py, projection.py, inner.py) and are held to
them by `tests/galore_mem/optim/test_scratch.py`, which counts the live storages of real steps. Tensors are rounded up
as the caching allocator rounds. One matrix is handled at a time, so a step's scratch is the largest of its matrices',
whatever their number and whatever the inner optimizer's kernel. Inside an operator the libraries may hold more, unseen:
cuSOLVER's workspaces and the copies that LAPACK factorises in place.

With k the shorter and M the longer side, R = min(rank, k) and l = min(k, R + 16) vectors, an iterative refresh holds
2 * 4kl bytes and one chunk of at most 16 MiB, or 4ll more than 2 * 4kl, or 4kl and 2 * 4ll, whichever is most; no fp32
copy of the gradient, and nothing of size M for `std`. Every pass holds the same, so their number does not matter.
"""

from typing import Literal

from estimators.analytic.tensors import rounded
from estimators.workload import Optimizer, OptimizerKernel, ProjType

RefreshKind = Literal["subspace", "randomized", "svd"]

CHUNK_BYTES = 16 * 2**20
"""fp32 gradient rows, and their product with the block of vectors, that a refresh holds at a time."""
OVERSAMPLING = 16

_SCALAR_BYTES = rounded(4)


def refresh_scratch_bytes(
    rows: int,
    columns: int,
    rank: int,
    itemsize: int,
    *,
    first: bool,
    proj_type: ProjType = "std",
    refresh: RefreshKind = "subspace",
) -> int:
    """Peak of one matrix's projector refresh above what was live before it.

    Live before are weight, full gradient and, unless `first`, the matrix's own projectors and states; a later refresh
    writes over the old projectors. A first refresh makes the projectors, and they are included in its figure. The
    projected gradient does not exist yet.

    Args:
        rows: of the weight (convolution kernels: output channels).
        columns: of the weight.
        rank: as asked for; more than the shorter side means the shorter side.
        itemsize: bytes per element of weight, gradient and projectors: 2 or 4.
        first: cold start; `subspace` then does what `randomized` does.
        proj_type: the sides that are projected.
        refresh: how projectors are found.
    """
    if refresh == "svd":
        return _svd_scratch_bytes(rows, columns, rank, itemsize, first=first, proj_type=proj_type)
    short, long = min(rows, columns), max(rows, columns)
    rank = min(rank, short)
    needs_long = _needs_longer_side(rows, columns, proj_type)
    needs_short = proj_type == "full" or not needs_long
    width = min(short, rank + OVERSAMPLING)
    block, square, basis, long_basis = _fp32(short, width), _fp32(width, width), _fp32(short, rank), _fp32(long, rank)
    chunk = _chunk_bytes(short, long, width, itemsize)
    points = [
        2 * block + max(chunk, square),  # Q and its image; the image, and both factors of its QR decomposition
        block + square + max(chunk, square + rounded(4 * width)),  # T = QᵀAQ; T, its eigenvalues and eigenvectors
        block + square + basis,  # the rotated basis
    ]
    if not (first or refresh == "randomized" or needs_short) and itemsize != 4:
        cast_columns = _chunk(short, long, rank)
        points.append(block + rounded(4 * short * cast_columns) + rounded(4 * cast_columns * rank))
    if needs_long:
        cast = rounded(4 * short * _chunk(short, long, rank)) if itemsize != 4 else 0
        points += [basis + long_basis + cast, basis + 2 * long_basis + _fp32(rank, rank)]
    if first:
        made = [basis] + [long_basis] * needs_long
        stored = rounded(itemsize * short * rank) * needs_short + rounded(itemsize * long * rank) * needs_long
        points.append((sum(made) if proj_type == "full" else max(made)) + stored)
    return max(points)


def _svd_scratch_bytes(rows: int, columns: int, rank: int, itemsize: int, *, first: bool, proj_type: ProjType) -> int:
    short = min(rows, columns)
    left, right = _fp32(rows, short), _fp32(short, columns)
    copy = _fp32(rows, columns) if itemsize != 4 else 0
    projected = _sides(rows, columns, proj_type)
    kept = left * ("left" in projected) + right * ("right" in projected)
    rank = min(rank, short)
    stored = rounded(itemsize * rows * rank) * ("left" in projected)
    stored += rounded(itemsize * rank * columns) * ("right" in projected)
    return max(copy + left + rounded(4 * short) + right, kept + stored * first)


def step_scratch_bytes(
    rows: int,
    columns: int,
    rank: int,
    itemsize: int,
    *,
    optimizer: Optimizer,
    proj_type: ProjType = "std",
    optimizer_kernel: OptimizerKernel = "foreach",
) -> int:
    """Peak of one matrix's step above weight, full gradient, projectors and states, all of which are live.

    Held are the projected gradient, the proxy that collects the update, and the inner optimizer's own temporaries; the
    product that maps the update back lands in the weight without any. In a matrix's first step its states come into
    being on top of this figure.

    Args:
        rows: of the weight.
        columns: of the weight.
        rank: as asked for.
        itemsize: bytes per element of weight and gradient: 2 or 4.
        optimizer: the inner optimizer's family.
        proj_type: the sides that are projected; `full` needs one intermediate of R times the shorter side.
        optimizer_kernel: torch's kernel, for adamw.
    """
    low_rows, low_columns = _low_rank_shape(rows, columns, rank, proj_type)
    low = rounded(itemsize * low_rows * low_columns)
    between = rounded(itemsize * min(rank, rows, columns) * min(rows, columns)) if proj_type == "full" else 0
    inner = inner_scratch_bytes(
        (low_rows, low_columns), itemsize, optimizer=optimizer, optimizer_kernel=optimizer_kernel
    )
    if optimizer == "adafactor":
        inner += 2 * _SCALAR_BYTES  # the weight's RMS, read before the step, and the state's own, until it is replaced
    return max(low + between, 2 * low + max(inner, between))


def inner_scratch_bytes(
    shape: tuple[int, ...], itemsize: int, *, optimizer: Optimizer, optimizer_kernel: OptimizerKernel = "foreach"
) -> int:
    """Peak temporaries of the inner optimizer's steady step on one tensor, proxy or whole parameter, alone.

    Sources: torch/optim/adam.py (`_single_tensor_adam`: sqrt and quotient; `_multi_tensor_adam`: sqrt; fused: none),
    bitsandbytes' kernels (in place), transformers/optimization.py (Adafactor: fp32 copies of half-precision gradient
    and weight, old and new update, both factors).

    This package's GaLore steps every parameter alone, whatever the kernel, so `foreach` holds one tensor's. Adafactor
    is meant with an explicit learning rate; its own schedule holds one scalar more.

    Args:
        shape: of the tensor.
        itemsize: bytes per element.
        optimizer: family.
        optimizer_kernel: torch's kernel, for adamw.
    """
    numel = 1
    for size in shape:
        numel *= size
    match optimizer:
        case "adamw":
            return {"loop": 2, "foreach": 1, "fused": 0}[optimizer_kernel] * rounded(itemsize * numel)
        case "adafactor":
            copies = 0 if itemsize == 4 else 2 * rounded(4 * numel)
            if len(shape) < 2:
                return copies + 2 * rounded(4 * numel)
            factors = rounded(4 * numel // shape[-1]) + rounded(4 * numel // shape[-2])
            return copies + 2 * rounded(4 * numel) + factors
        case _:
            return 0


def _sides(rows: int, columns: int, proj_type: ProjType) -> tuple[str, ...]:
    if proj_type == "full":
        return ("left", "right")
    if proj_type in ("left", "right"):
        return (proj_type,)
    return ("right",) if (rows >= columns) == (proj_type == "std") else ("left",)


def _needs_longer_side(rows: int, columns: int, proj_type: ProjType) -> bool:
    longer = "left" if rows >= columns else "right"
    return longer in _sides(rows, columns, proj_type)


def _low_rank_shape(rows: int, columns: int, rank: int, proj_type: ProjType) -> tuple[int, int]:
    rank, projected = min(rank, rows, columns), _sides(rows, columns, proj_type)
    return (rank if "left" in projected else rows, rank if "right" in projected else columns)


def _fp32(rows: int, columns: int) -> int:
    return rounded(4 * rows * columns)


def _chunk(short: int, long: int, width: int) -> int:
    return min(long, max(1, CHUNK_BYTES // (4 * (short + width))))


def _chunk_bytes(short: int, long: int, width: int, itemsize: int) -> int:
    """The fp32 copy of a chunk of a half-precision gradient, and its product with the vectors."""
    chunk = _chunk(short, long, width)
    return (rounded(4 * short * chunk) if itemsize != 4 else 0) + rounded(4 * chunk * width)
