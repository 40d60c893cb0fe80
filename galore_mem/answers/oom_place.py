"""Where in a run an error happened: by its traceback, and by what the run's plan says of sizes and levels."""

from dataclasses import dataclass
from typing import Any

from estimators.allocator.settings import DEFAULTS
from estimators.allocator.sizes import block_bytes, segment_bytes
from estimators.analytic.births import Birth, Stage
from galore_mem.answers.oom_message import OomMessage, size_text

LEVEL_SHARE = 0.05
"""Blocks hold a little more than tensors, about 2 %; a level this far away is another place."""
_OPTIMIZERS = ("/optim/", "\\optim\\", "bitsandbytes", "galore_torch", "optimization.py", "deepspeed/ops")
_LOADERS = ("convert", "to", "cuda", "_apply", "from_pretrained", "load_state_dict", "_load_state_dict_into_meta_model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A tensor that the failed request may have been for."""

    birth: Birth
    layer: int | None
    """The layer whose turn it was, by how much was allocated."""
    distance_bytes: int
    """Between what was allocated and what lives when the tensor is made."""

    def to_dict(self) -> dict[str, Any]:
        """An entry of `suspects` in the JSON output."""
        birth = self.birth
        return {
            "tensor": birth.name,
            "layer": self.layer,
            "stage": birth.stage,
            "iteration": birth.iteration,
            "bytes": birth.nbytes,
            "formula": birth.formula,
            "category": birth.category,
            "is_sum": birth.is_sum,
            "live_before_bytes": sorted((birth.low_bytes, birth.high_bytes)),
            "distance_bytes": self.distance_bytes,
        }


_EVALUATORS = ("evaluation_loop", "prediction_loop", "prediction_step", "nested_concat", "torch_pad_and_concatenate")
"""transformers' Trainer, which evaluates with them."""


def stage_of(frames: tuple[str, ...]) -> Stage | None:
    """The stage of a run that a traceback stopped in; None where it does not tell.

    An optimizer inside backward is a per-layer update. Recomputation under checkpointing runs modules inside backward.
    """
    files = [tuple(frame.split(": ", 1)) for frame in frames]
    if any(function.rpartition(".")[2] in _EVALUATORS for _, function in files):
        return "evaluation"
    if any(part in file for file, _ in files for part in _OPTIMIZERS):
        return "step"
    if any(function.endswith("backward") for _, function in files):
        return "backward"
    if any("cross_entropy" in function or "loss_utils" in file for file, function in files):
        return "loss"
    functions = [function.rpartition(".")[2] for _, function in files]
    if any(function in _LOADERS for function in functions) and "forward" not in functions:
        return "loading"
    return "forward" if "forward" in functions else None


def suspects_of(
    message: OomMessage, births: tuple[Birth, ...], allocated_bytes: int | None, stage: Stage | None
) -> tuple[Suspect, ...]:
    """Tensors whose segment has the size that was asked for, those whose level fits best first, one of each name.

    Scratch that is only known as a sum comes in where it could hold such a tensor.

    Args:
        message: the error.
        births: all tensors of the run.
        allocated_bytes: what was allocated, where the error says so.
        stage: by the traceback; `step` stands for refreshes too.
    """
    alike = [birth for birth in births if not birth.is_sum and _has_requested_size(birth, message)]
    alike += [birth for birth in births if birth.is_sum and _holds_requested_size(birth, message)]
    if stage is not None:
        there = [birth for birth in alike if (birth.stage if birth.stage != "refresh" else "step") == stage]
        alike = there or alike
    level = allocated_bytes or 0
    found: dict[tuple[str, Stage], Suspect] = {}
    for birth in sorted(alike, key=lambda birth: (birth.distance_bytes(level), birth.is_sum, birth.count)):
        suspect = Suspect(birth=birth, layer=birth.layer_at(level), distance_bytes=birth.distance_bytes(level))
        found.setdefault((birth.name, birth.stage), suspect)
    return tuple(found.values())


def is_near(suspect: Suspect, allocated_bytes: int) -> bool:
    """Whether the level agrees with what was allocated."""
    return suspect.distance_bytes <= LEVEL_SHARE * allocated_bytes


def _has_requested_size(birth: Birth, message: OomMessage) -> bool:
    segment = segment_bytes(block_bytes(birth.nbytes, DEFAULTS), DEFAULTS)
    if message.exact_requested_bytes is not None:
        return segment == message.exact_requested_bytes
    return message.requested is not None and size_text(segment) == message.requested.text


def _holds_requested_size(birth: Birth, message: OomMessage) -> bool:
    requested = message.exact_requested_bytes or (message.requested.nbytes if message.requested else None)
    return requested is not None and segment_bytes(block_bytes(birth.nbytes, DEFAULTS), DEFAULTS) >= requested
