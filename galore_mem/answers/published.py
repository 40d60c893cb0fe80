"""Figures that others published for a configuration, beside ours."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from estimators.footprint import Footprint
from estimators.workload import Workload
from profiles.published import Figure, Published, published_figures

MAY_DIFFER = ("implementation", "optimizer_kernel", "quant_blocksize")
"""Conditions under which a figure still stands beside ours, with the difference named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A published figure and what this plan says of the same thing."""

    published: Published
    ours_bytes: int
    differs: tuple[str, ...]
    """Conditions of theirs that are not ours: `implementation galore-torch`."""

    def to_dict(self) -> dict[str, Any]:
        """One element of `published` in the JSON output."""
        return {
            "name": self.published.name,
            "figure": self.published.figure,
            "value": self.published.value,
            "unit": self.published.unit,
            "kind": self.published.kind,
            "ours_bytes": self.ours_bytes,
            "differs": list(self.differs),
            "source": self.published.source,
            "note": self.published.note,
        }


def published_beside(workload: Workload, footprint: Footprint) -> tuple[Beside, ...]:
    """Published figures whose stated conditions are this workload's; what a source leaves out counts as the default."""
    if not _is_plain(workload):
        return ()
    found = []
    own = _conditions(workload)
    for row in _figures(workload.model.name):
        unlike = [name for name, value in {**_DEFAULTS, **row.conditions}.items() if own[name] != value]
        if row.figure in _OURS and all(name in MAY_DIFFER for name in unlike):
            differs = tuple(f"{name.replace('_', ' ')} {row.conditions[name]}" for name in unlike)
            found.append(Beside(published=row, ours_bytes=_OURS[row.figure](row, footprint), differs=differs))
    return tuple(found)


@lru_cache(maxsize=8)
def _figures(model: str) -> tuple[Published, ...]:
    """Read once for all configurations of a plan."""
    return published_figures(model)


_DEFAULTS = {"update": "whole", "micro_batch_size": 1, "checkpointing": "none"}


def _conditions(workload: Workload) -> dict[str, Any]:
    method, batch = workload.method, workload.batch
    return {
        "method": method.name,
        "update": method.update,
        "rank": method.rank,
        "implementation": method.implementation,
        "optimizer_kernel": method.optimizer_kernel,
        "quant_blocksize": method.quant_blocksize,
        "precision": workload.precision,
        "checkpointing": workload.checkpointing,
        "micro_batch_size": batch.micro_batch_size,
        "sequence_length": batch.sequence_length,
    }


def _is_plain(workload: Workload) -> bool:
    """Nothing is set that no source mentions."""
    method = workload.method
    return (
        workload.batch.gradient_accumulation_steps == 1
        and workload.attention in ("auto", "flash")
        and (workload.loss, workload.padding, workload.keep_outputs) == ("full", False, False)
        and not method.master_weights
        and (workload.eval_batch, workload.resume, workload.data_parallel) == (None, "none", 1)
        and (method.proj_type, method.target_modules) == ("std", ("all-linear",))
    )


def _resident(*categories: str) -> Callable[[Published, Footprint], int]:
    return lambda row, footprint: sum(footprint.resident_bytes.get(category, 0) for category in categories)


def _states(row: Published, footprint: Footprint) -> int:
    """The GaLore paper's formula counts the projector among the states, `mR + 2nR`; measured ones list it apart."""
    counted = ("optimizer_states", "projectors") if row.kind == "estimated" else ("optimizer_states",)
    return _resident(*counted)(row, footprint)


_OURS: dict[Figure, Callable[[Published, Footprint], int]] = {
    "process": lambda row, footprint: footprint.process_bytes,
    "total": lambda row, footprint: footprint.peak_allocated_bytes,
    "weights": _resident("weights"),
    "retained": _resident("projectors"),
    "optimizer_states": _states,
    "optimizer_states_and_gradients": _resident("optimizer_states", "projectors", "gradients"),
    "weights_and_optimizer_states": _resident("weights", "optimizer_states", "projectors"),
}
