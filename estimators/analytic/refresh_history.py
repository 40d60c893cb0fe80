"""A refresh of this package's GaLore, tensor by tensor (galore_mem/optim/refresh.py, `new_bases`).

The largest moments of it are `galore_scratch.refresh_scratch_bytes`; here is what an allocator sees of it, with the one
pass that gradients mostly take.
"""

from estimators.analytic.galore_scratch import CHUNK_BYTES, OVERSAMPLING
from estimators.analytic.parameters import ParameterGroup
from estimators.analytic.projection import projection_of
from estimators.analytic.states import group_states
from estimators.analytic.walk import Walk
from estimators.workload import Method


def write_refresh(walk: Walk, group: ParameterGroup, method: Method, *, first: bool) -> None:
    """Recompute one matrix's projectors.

    Args:
        walk: what is told.
        group: the matrix's group.
        method: this package's GaLore.
        first: the projectors are made.
    """
    short, long = min(group.shape), max(group.shape)
    sides, rank = projection_of(group, method).sides, projection_of(group, method).rank
    long_side = "left" if group.shape[0] >= group.shape[1] else "right"
    width = min(short, rank + OVERSAMPLING)
    needs_long, half = long_side in sides, group.itemsize != 4
    walk.brief(4)  # the gradient's norm
    walk.hold("basis", 4 * short * width)
    if needs_long and len(sides) == 1 and not first:
        _chunks(walk, short, long, rank, fp32_rows=half, product=half)
    walk.hold("image", 4 * short * width)
    _chunks(walk, short, long, width, fp32_rows=half, product=True)
    walk.drop("basis")
    _orthonormal(walk, "image", "basis", short, width)
    walk.hold("ritz", 4 * width * width)
    _chunks(walk, short, long, width, fp32_rows=half, product=True)
    walk.brief(4)  # its trace
    walk.hold("values", 4 * width)
    walk.hold("rotation", 4 * width * width)
    walk.drop("values", "ritz")
    walk.hold("short", 4 * short * rank)
    walk.drop("rotation", "basis")
    if needs_long:
        walk.hold("image", 4 * long * rank)
        _chunks(walk, short, long, rank, fp32_rows=half, product=False)
        _orthonormal(walk, "image", "long", long, rank)
        if len(sides) == 1:
            walk.drop("short")
    if first:
        walk.take_states(state for state in group_states(group, method) if state.category == "projectors")
    walk.drop("short", "long")


def _chunks(walk: Walk, short: int, long: int, width: int, *, fp32_rows: bool, product: bool) -> None:
    """Columns of the matrix at a time: their fp32 copy where they are not fp32, and their product with vectors.

    Each piece is let go of before the next is taken, and finds the same blocks: those of one size are written once.
    """
    step = min(long, max(1, CHUNK_BYTES // (4 * (short + width))))
    for columns in dict.fromkeys((step, long % step)):
        if columns:
            walk.brief(*[4 * short * columns] * fp32_rows, *[4 * columns * width] * product)


def _orthonormal(walk: Walk, source: str, target: str, rows: int, columns: int) -> None:
    """A QR decomposition; the upper factor dies at once."""
    walk.hold(target, 4 * rows * columns)
    walk.brief(4 * columns * columns)
    walk.drop(source)
