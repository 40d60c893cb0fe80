"""What a projector's refresh may hold inside cuSOLVER: unseen by any trace, known only on a GPU, bounded here.

torch.linalg.svd on CUDA (aten/src/ATen/native/cuda/linalg/BatchLinearAlgebraLib.cpp, svd_cusolver) takes the `gesvdj`
driver unless told otherwise, hands it a column-major copy of the matrix, and takes cuSOLVER's workspace from torch's
allocator. The copy is certain: 4mn. The workspace is closed source. Its bound is one more copy of the matrix and of
both factors, and a panel of 264 columns of the longer side: a size that was seen, 4.10 GiB for a complex double
matrix of 3 x 2^20 with CUDA 12.8 (pytorch/pytorch pull request 155811), is 262.4 elements for each of the 2^20
columns, of which two copies of the matrix are 6. Three more, of fp32 matrices of 640 x 640 and 640 x 1708 under torch
2.2 (timelines in pytorch/ao's history, docs/trace.md), take about half the bound: mn + kk elements and at most 0.2 MB,
k the shorter side. A matrix that does not converge is decomposed again by `gesvd`, with
a workspace that nothing here bounds (cupy issue 2351 saw m x m elements).

This package's own refresh needs QR and a small symmetric eigenproblem instead. Its bound is a copy of the block with a
panel as wide, and for the eigenproblem LAPACK's documented workspace (ssyevd: 2l^2 + 6l + 1) beside a copy.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from estimators.analytic.galore_scratch import OVERSAMPLING
from estimators.analytic.parameters import ParameterGroup
from estimators.analytic.projection import projection_of
from estimators.analytic.steps import Groups, walk_parameter_step, walk_whole_step
from estimators.analytic.tensors import rounded
from estimators.analytic.walk import InsideSvd, Walk
from estimators.footprint import Term
from estimators.workload import Method

PANEL_COLUMNS = 264


SvdTable = tuple[tuple[int, int, int], ...]
"""(shorter side, longer side, scratch bytes) as measured on a card."""


@lru_cache(maxsize=4096)
def unknown_scratch(groups: Groups, method: Method, measured: SvdTable = ()) -> tuple[Term, ...]:
    """Terms that a refresh may add to the largest moment of a run's steps: nothing to the central figure.

    Args:
        groups: all parameters.
        method: the optimizer; methods without projectors have no such terms.
        measured: what decompositions took on this very card, by shape; others keep their bound.

    Returns:
        Terms whose `high_bytes`, added to the largest of all moments, bound what any refresh reaches. They are small or
        zero where another statement of the step already holds more than the decomposition.
    """
    projected = tuple(group for group in groups if group.projected and group.trainable)
    if not projected:
        return ()
    if method.implementation == "galore-mem":
        high = max(_qr_and_eigh_bytes(group, method) for group in projected)
        return (_term("QR and eigh workspace", high, "a copy of the block, a panel of 264 columns, LAPACK's ssyevd"),)
    parts = [groups] if method.update == "whole" else [(group,) for group in projected]
    known = {(shorter, longer): nbytes for shorter, longer, nbytes in measured}
    if known.keys() & {(min(group.shape), max(group.shape)) for group in projected}:
        held = max(_growth(part, method, lambda rows, columns: _known_bytes(known, rows, columns)) for part in parts)
        return (_term("SVD scratch", held, "as measured on this card; for other shapes its bound"),)
    copied = max(_growth(part, method, svd_copy_bytes) for part in parts)
    worked = max(_growth(part, method, _svd_bytes) for part in parts)
    return (
        _term("SVD input copy", copied, "torch hands gesvdj a column-major copy of the matrix: 4mn"),
        _term("SVD workspace", worked - copied, "copies of matrix and factors, and a panel of 264 columns"),
    )


def _term(name: str, high_bytes: int, reason: str) -> Term:
    return Term(name=name, low_bytes=0, high_bytes=high_bytes, reason=reason)


def _growth(groups: Groups, method: Method, inside_svd: InsideSvd) -> int:
    """How much the largest moment of all steps grows with what the decomposition holds."""
    return _largest(groups, method, inside_svd) - _largest(groups, method, None)


def _largest(groups: Groups, method: Method, inside_svd: InsideSvd | None) -> int:
    largest = 0
    for first in (True, False):
        walk = Walk(inside_svd=inside_svd)
        if method.update == "whole":
            walk_whole_step(walk, groups, method, first=first, refreshes=True)
        else:
            walk_parameter_step(walk, groups[0], method, first=first, refreshes=True)
        largest = max(largest, *(moment.live_bytes for moment in walk.moments()))
    return largest


def svd_copy_bytes(rows: int, columns: int) -> int:
    """The copy that gesvdj destroys."""
    return rounded(4 * rows * columns)


def svd_workspace_bytes(rows: int, columns: int) -> int:
    """Bound of gesvdj's workspace for an fp32 matrix."""
    smaller, larger = min(rows, columns), max(rows, columns)
    return rounded(4 * (rows * columns + smaller * (rows + columns) + PANEL_COLUMNS * larger))


def _svd_bytes(rows: int, columns: int) -> int:
    return svd_copy_bytes(rows, columns) + svd_workspace_bytes(rows, columns)


def _known_bytes(known: Mapping[tuple[int, int], int], rows: int, columns: int) -> int:
    nbytes = known.get((min(rows, columns), max(rows, columns)))
    return _svd_bytes(rows, columns) if nbytes is None else rounded(nbytes)


def _qr_and_eigh_bytes(group: ParameterGroup, method: Method) -> int:
    projection = projection_of(group, method)
    smaller = min(group.shape)
    width = min(smaller, projection.rank + OVERSAMPLING)
    longest = max(_long_sides(projection.projector_shapes, projection.rank), smaller)
    qr_bytes = rounded(4 * longest * width) + rounded(4 * PANEL_COLUMNS * longest)
    eigh_bytes = rounded(4 * width * width) + rounded(4 * (2 * width * width + 6 * width + 1))
    return max(qr_bytes, eigh_bytes)


def _long_sides(shapes: Iterable[tuple[int, ...]], rank: int) -> int:
    """The longest side along which a basis is orthonormalised."""
    return max(shape[0] * shape[1] // rank for shape in shapes)
