"""The projectors of one parameter: when they are renewed, and what happens to the states that lean on them."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from galore_mem.optim import geometry, moments, refresh, storage
from galore_mem.optim.geometry import Shape, Side

ACCUMULATED = "accumulated_gradient"
STEP = "projector_step"
"""Steps that the parameter has made; decides when its projectors are renewed."""
POSTPONED = "projector_refresh_postponed"
"""A refresh was due and its gradient unusable: the next step tries again."""

State = dict[str, Any]
Group = Mapping[str, Any]


def is_ours(name: str) -> bool:
    """Whether a key of `optimizer.state[p]` is GaLore's; all others are the inner optimizer's."""
    return name.startswith("projector_") or name == ACCUMULATED


def inner_state(state: State) -> State:
    """The inner optimizer's part of a parameter's state."""
    return {name: value for name, value in state.items() if not is_ours(name)}


def bases(group: Group, state: State, shape: Shape, dtype: torch.dtype) -> dict[Side, Tensor]:
    """The projectors by side, in `dtype`; resident tensors themselves where they are stored so."""
    return {
        side: storage.load(
            state, side, group["projector_storage"], dtype, geometry.projector_shape(shape, side, group["rank"])
        )
        for side in geometry.sides(shape, group["proj_type"])
    }


def is_due(group: Group, state: State, shape: Shape, place: float) -> bool:
    """Whether the next step begins with a refresh.

    Args:
        group: the parameter's group.
        state: its state, empty before the first step.
        shape: of its matrix.
        place: 0 <= place < 1, the parameter's among all; moves its refreshes within the gap where they are staggered.
    """
    if state.get(POSTPONED) or not _are_there(group, state, shape):
        return True
    gap = group["update_proj_gap"]
    offset = int(place * gap) if group["stagger"] else 0
    return bool(state[STEP] % gap == offset)


def renew(group: Group, state: State, gradient: Tensor, seed: int) -> bool:
    """Recompute the projectors from a gradient.

    Args:
        group: the parameter's group.
        state: its state, changed in place.
        gradient: (rows, columns), in the parameter's dtype.
        seed: of a random start.

    Returns:
        False where the parameter must not step: its gradient is not finite, or zero and there is no projector yet.
        Neither has directions; what is there stays, and the refresh is due again.
    """
    shape = (gradient.shape[0], gradient.shape[1])
    norm = refresh.frobenius_norm(gradient)
    previous = bases(group, state, shape, gradient.dtype) if _are_there(group, state, shape) else None
    state.setdefault(STEP, 0)
    if not 0.0 < norm < math.inf:
        state[POSTPONED] = True
        return norm == 0.0 and previous is not None
    request = refresh.Request(
        rank=group["rank"], proj_type=group["proj_type"], kind=group["refresh"], seed=seed, norm=norm
    )
    found = refresh.new_bases(gradient, request, previous)
    _carry_moments(group, state, previous, found)
    for side, basis in found.items():
        storage.save(state, side, basis, group["projector_storage"], gradient.dtype)
    state.pop(POSTPONED, None)
    return True


def _are_there(group: Group, state: State, shape: Shape) -> bool:
    return all(storage.key(side) in state for side in geometry.sides(shape, group["proj_type"]))


def _carry_moments(group: Group, state: State, previous: dict[Side, Tensor] | None, found: dict[Side, Tensor]) -> None:
    if previous is None or group["moments"] == "keep":
        return
    if group["moments"] == "reset":
        for name in inner_state(state):
            del state[name]
    else:
        moments.reproject_(inner_state(state), moments.change_of_basis(previous, found))
