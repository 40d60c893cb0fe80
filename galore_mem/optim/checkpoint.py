"""Saving and loading: plain dicts, checked before anything changes, restored bit for bit."""

from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from galore_mem.errors import UsageError

if TYPE_CHECKING:
    from galore_mem.optim.galore import GaLore

FORMAT = 1


def record(optimizer: "GaLore") -> dict[str, Any]:
    """What a loader must match: format, inner optimizer, and shape and dtype of every parameter in order."""
    parameters = list(chain.from_iterable(group["params"] for group in optimizer.param_groups))
    return {
        "format": FORMAT,
        "inner": optimizer.inner.name,
        "seed": optimizer.seed,
        "shapes": [list(parameter.shape) for parameter in parameters],
        "dtypes": [str(parameter.dtype).removeprefix("torch.") for parameter in parameters],
    }


def check(optimizer: "GaLore", saved: dict[str, Any]) -> None:
    """Refuse a checkpoint of something else.

    Raises:
        UsageError: says what differs.
    """
    own = record(optimizer)
    if saved["format"] > FORMAT:
        raise UsageError("the checkpoint was written by a newer galore-mem", "", "upgrade: pip install -U galore-mem")
    if saved["inner"] != own["inner"]:
        raise UsageError(
            f"the checkpoint's inner optimizer is {saved['inner']}, this one's is {own['inner']}",
            "their states differ",
            "build the optimizer as it was when the checkpoint was saved",
        )
    parameters = chain.from_iterable(group["params"] for group in optimizer.param_groups)
    for index, parameter in enumerate(parameters):
        for what in ("shapes", "dtypes"):
            if saved[what][index : index + 1] != own[what][index : index + 1]:
                raise UsageError(
                    f"{optimizer.name_of(parameter)} is {own[what][index]}, in the checkpoint "
                    f"{saved[what][index] if index < len(saved[what]) else 'missing'}",
                    "states follow the parameter's shape and dtype",
                    "build model and groups as they were when the checkpoint was saved",
                )


def load(optimizer: "GaLore", state_dict: dict[str, Any], load_groups: Callable[[dict[str, Any]], None]) -> None:
    """Load a state dict without the casts of torch's loader, which would turn 8-bit codes into floats.

    Args:
        optimizer: the receiving optimizer.
        state_dict: from `GaLore.state_dict`; without its `galore` record nothing but the groups is checked.
        load_groups: torch's `load_state_dict`, which runs hooks and restores the groups.
    """
    saved = state_dict.get("galore")
    if saved is not None:
        check(optimizer, saved)
    held: dict[Any, Any] = {}

    def keep_states_aside(_: torch.optim.Optimizer, given: dict[str, Any]) -> dict[str, Any]:
        held.update(given["state"])
        return {**given, "state": {}}

    def put_states_back(_: torch.optim.Optimizer) -> None:
        parameters = list(chain.from_iterable(group["params"] for group in optimizer.param_groups))
        for index, values in held.items():
            optimizer.state[parameters[index]] = _restored(values, parameters[index])
        share_maps(optimizer)

    handles = (
        optimizer.register_load_state_dict_pre_hook(keep_states_aside),
        optimizer.register_load_state_dict_post_hook(put_states_back, prepend=True),
    )
    try:
        load_groups(state_dict)
    finally:
        for handle in handles:
            handle.remove()
    if saved is not None:
        optimizer.seed = saved["seed"]


def _restored(values: dict[str, Any], parameter: Tensor) -> dict[str, Any]:
    """Copies on the parameter's device; counters that rest on the host stay there."""
    return {name: _moved(name, value, parameter) for name, value in values.items()}


def _moved(name: str, value: object, parameter: Tensor) -> object:
    if not isinstance(value, Tensor):
        return value
    on_host = name == "step" and value.device.type == "cpu"
    moved = value.detach().to(value.device if on_host else parameter.device)
    return moved.clone() if moved is value or moved.data_ptr() == value.data_ptr() else moved


def follow_device(state: dict[str, Any], parameter: Tensor) -> None:
    """Move a state to where its parameter has been moved since, as by `model.to(device)`; in place."""
    held = next((value for value in state.values() if isinstance(value, Tensor) and value.dim()), None)
    if held is not None and held.device != parameter.device:
        state.update(_restored(state, parameter))


def share_maps(optimizer: "GaLore") -> None:
    """Let 8-bit states share bitsandbytes' quantisation maps again, as they did before saving."""
    shared: dict[tuple[str, torch.device], Tensor] = {}
    for state in optimizer.state.values():
        for name in ("qmap1", "qmap2"):
            if name in state:
                state[name] = shared.setdefault((name, state[name].device), state[name])
