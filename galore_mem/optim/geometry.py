"""Which sides of a matrix are projected, and the shapes that follow."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from galore_mem.errors import UsageError

Side = Literal["left", "right"]
Shape = tuple[int, int]


def is_projected(group: Mapping[str, Any], parameter: Tensor) -> bool:
    """Whether GaLore projects this parameter; vectors and scalars are trained in full."""
    return group["rank"] is not None and parameter.dim() >= 2


def check_projectable(parameter: Tensor, name: str) -> None:
    """Refuse parameters whose gradient has no matrix view.

    Raises:
        UsageError: complex, sharded, or in a memory layout whose rows cannot be flattened without a copy.
    """
    if parameter.is_complex() or not parameter.is_floating_point():
        raise UsageError(
            f"{name} is {parameter.dtype}", "GaLore projects real matrices", "leave it in a group without rank"
        )
    if hasattr(parameter, "device_mesh"):
        raise UsageError(
            f"{name} is sharded over devices",
            "a projector of a shard is not the matrix's",
            "use rank=None for sharded parameters",
        )
    if not parameter.is_contiguous():
        raise UsageError(
            f"{name} of shape {tuple(parameter.shape)} is not contiguous",
            "its update could not land in place",
            "call .contiguous() on it (channels_last weights: model.to(memory_format=torch.contiguous_format))",
        )


def as_matrix(tensor: Tensor) -> Tensor:
    """The matrix that GaLore sees: convolution kernels become (output channels, everything else)."""
    return tensor if tensor.dim() == 2 else tensor.reshape(tensor.shape[0], -1)


def sides(shape: Shape, proj_type: str) -> tuple[Side, ...]:
    """The sides from which the gradient is multiplied.

    `std` keeps a basis of the smaller dimension, `reverse_std` of the larger one (as galore_torch's GaLoreProjector).
    """
    if proj_type == "full":
        return ("left", "right")
    if proj_type in ("left", "right"):
        return ("left",) if proj_type == "left" else ("right",)
    tall = shape[0] >= shape[1]
    return ("right",) if tall == (proj_type == "std") else ("left",)


def effective_rank(shape: Shape, rank: int) -> int:
    """A matrix has no more directions than its smaller dimension."""
    return min(rank, *shape)


def projector_shape(shape: Shape, side: Side, rank: int) -> Shape:
    """Left bases stand as columns (rows, R); right bases lie as rows (R, columns)."""
    rank = effective_rank(shape, rank)
    return (shape[0], rank) if side == "left" else (rank, shape[1])


def low_rank_shape(shape: Shape, proj_type: str, rank: int) -> Shape:
    """Shape of the projected gradient, and so of the inner optimizer's moments."""
    rank, projected = effective_rank(shape, rank), sides(shape, proj_type)
    return (rank if "left" in projected else shape[0], rank if "right" in projected else shape[1])


def scalar(value: Tensor, fake: float) -> float:
    """The number in a 0-d tensor; `fake` where the tensor has a shape and no data, as when a step is traced."""
    if value.device.type == "meta" or isinstance(value, torch._subclasses.FakeTensor):
        return fake
    return float(value.item())
