"""Names, defaults and checks of GaLore's own options, which stand in a parameter group beside the inner optimizer's."""

from collections.abc import Mapping
from typing import Any, Literal

from galore_mem.errors import UsageError

ProjType = Literal["std", "reverse_std", "left", "right", "full"]
RefreshKind = Literal["subspace", "randomized", "svd"]
ProjectorStorage = Literal["parameter", "float32", "int8", "int4"]
Moments = Literal["keep", "reset", "reproject"]

DEFAULTS: dict[str, Any] = {
    "rank": None,
    "update_proj_gap": 200,
    "scale": 0.25,
    "proj_type": "std",
    "refresh": "subspace",
    "projector_storage": "parameter",
    "moments": "keep",
    "stagger": False,
    "stochastic_rounding": False,
}
"""Options that any parameter group may override; everything else in a group belongs to the inner optimizer."""

CHOICES: dict[str, tuple[str, ...]] = {
    "proj_type": ("std", "reverse_std", "left", "right", "full"),
    "refresh": ("subspace", "randomized", "svd"),
    "projector_storage": ("parameter", "float32", "int8", "int4"),
    "moments": ("keep", "reset", "reproject"),
}


def inner_options(group: Mapping[str, Any]) -> dict[str, Any]:
    """What the inner optimizer sees of a parameter group."""
    return {
        name: value for name, value in group.items() if name not in DEFAULTS and name not in ("params", "param_names")
    }


def check_group(group: Mapping[str, Any]) -> None:
    """Refuse GaLore options that cannot be meant.

    Raises:
        UsageError: names the option, the value and what may stand there.
    """
    for name, choices in CHOICES.items():
        if group[name] not in choices:
            raise UsageError(f"{name}={group[name]!r} is unknown", "", f"use one of: {', '.join(choices)}")
    rank, gap = group["rank"], group["update_proj_gap"]
    if rank is not None and (not isinstance(rank, int) or isinstance(rank, bool) or rank < 1):
        raise UsageError(
            f"rank={rank!r} is no rank", "it counts directions", "give a positive integer, or None to train in full"
        )
    if not isinstance(gap, int) or gap < 1:
        raise UsageError(
            f"update_proj_gap={gap!r} is no number of steps", "", "give a positive integer, for instance 200"
        )
