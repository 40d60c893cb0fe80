"""The geometry of a GaLore projection: which side is projected, what the projector is, what stays low-rank."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from estimators.analytic.parameters import ParameterGroup
from estimators.workload import Method, ProjType
from profiles.errors import InputError

Shape = tuple[int, ...]
Side = Literal["left", "right"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """How one m x n gradient is projected; k = min(m, n)."""

    sides: tuple[Side, ...]
    """Where projectors stand: `left` of the gradient, `right` of it, or both."""
    rank: int
    """Effective rank: min(R, m, n), since a factor has no more than k columns."""
    low_rank_shape: Shape
    """Shape of the projected gradient, which the inner optimizer's states have too."""
    projector_shapes: tuple[Shape, ...]
    """(m, rank) on the left, (rank, n) on the right, both for `full`."""
    factor_shapes: tuple[Shape, ...]
    """The whole SVD factors that the projectors are slices of: U is (m, k), Vh is (k, n)."""

    @property
    def low_rank_numel(self) -> int:
        """Elements of the projected gradient."""
        return self.low_rank_shape[0] * self.low_rank_shape[1]


def projection_of(group: ParameterGroup, method: Method) -> Projection:
    """Projection of each parameter of a projected group.

    `std` projects the smaller side (m >= n from the right), `reverse_std` the larger one, as
    galore_torch/galore_projector.py does.

    Raises:
        InputError: the method carries no rank.
    """
    if method.rank is None:
        raise InputError(f"{method.name} has no rank", "a projection needs one", "give --rank 128")
    return _projection(group.shape[0], group.shape[1], method.rank, method.proj_type)


@lru_cache(maxsize=4096)
def _projection(rows: int, columns: int, rank: int, proj_type: ProjType) -> Projection:
    smaller = min(rows, columns)
    rank = min(rank, smaller)
    sides = _sides(rows >= columns, proj_type)
    return Projection(
        sides=sides,
        rank=rank,
        low_rank_shape=(rank if "left" in sides else rows, rank if "right" in sides else columns),
        projector_shapes=tuple((rows, rank) if side == "left" else (rank, columns) for side in sides),
        factor_shapes=tuple((rows, smaller) if side == "left" else (smaller, columns) for side in sides),
    )


def _sides(tall: bool, proj_type: ProjType) -> tuple[Side, ...]:
    match proj_type:
        case "full":
            return ("left", "right")
        case "left" | "right":
            return (proj_type,)
        case "std":
            return ("right",) if tall else ("left",)
        case "reverse_std":
            return ("left",) if tall else ("right",)
