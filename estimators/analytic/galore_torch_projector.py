"""What galore_torch 1.0's GaLoreProjector allocates (galore_torch/galore_projector.py), on top of what lives already.

Per m x n gradient of e bytes an element, with k = min(m, n): the decomposition casts a half-precision gradient to fp32
(4mn), and makes U (4mk), the singular values and Vh (4kn). Of these only the factor that an fp32 projector is a view
of survives. Mapping back makes two full-size tensors, the product and its multiple by `scale`.
"""

from math import prod

from estimators.analytic.parameters import ParameterGroup
from estimators.analytic.projection import Projection
from estimators.analytic.walk import Walk


def refresh(
    walk: Walk, group: ParameterGroup, projection: Projection, *, itemsize: int, first: bool, retains: bool
) -> None:
    """`get_orthogonal_matrix`: a new projector by a whole SVD; the old one lives until the new one stands.

    Args:
        walk: what lives.
        group: the parameter's group.
        projection: its projection.
        itemsize: bytes per element of the gradient that is decomposed; 4 where Adafactor has cast it.
        first: there is no old projector.
        retains: the projector is a view of a whole factor, which then belongs to the projectors.
    """
    rows, columns = group.shape
    smaller, rank = min(rows, columns), projection.rank
    walk.enter("refresh")
    if itemsize != 4:
        walk.hold("matrix", 4 * rows * columns)
    for side, size in (("left", 4 * rows * smaller), ("right", 4 * smaller * columns)):
        if retains and side in projection.sides:
            walk.take("projectors", size)
        else:
            walk.hold(f"factor_{side}", size)
    walk.hold("singular_values", 4 * smaller)
    walk.decompose(rows, columns)
    if len(projection.sides) == 1:
        # The half that is never used: U diag(s) for a right projector, diag(s) Vh for a left one.
        walk.hold("diagonal", 4 * rank * rank)
        walk.hold("unused", 4 * rank * (rows if projection.sides == ("right",) else columns))
        walk.drop("diagonal")
    kept = projection.factor_shapes if retains else projection.projector_shapes
    kept_bytes = [(4 if retains else group.itemsize) * prod(shape) for shape in kept]
    if not retains:
        for nbytes in kept_bytes:
            walk.take("projectors", nbytes)
    walk.drop("matrix", "factor_left", "factor_right", "singular_values", "unused")
    if not first:
        for nbytes in kept_bytes:
            walk.give("projectors", nbytes)
    walk.enter("step")


def project(walk: Walk, group: ParameterGroup, projection: Projection, *, itemsize: int) -> int:
    """`project`: leaves the low-rank gradient in the variable `low_gradient`, and returns its bytes."""
    nbytes = itemsize * projection.low_rank_numel
    if len(projection.sides) == 2:
        walk.hold("half", itemsize * projection.rank * group.shape[1])
    walk.hold("low_gradient", nbytes)
    walk.drop("half")
    return nbytes


def project_back(walk: Walk, group: ParameterGroup, projection: Projection, *, itemsize: int) -> None:
    """`project_back`: leaves the full-size update in the variable `full_update`."""
    if len(projection.sides) == 2:
        walk.hold("half", itemsize * projection.rank * group.shape[0])
    walk.hold("product", itemsize * group.numel)
    walk.drop("half")
    walk.hold("full_update", itemsize * group.numel)
    walk.drop("product")
