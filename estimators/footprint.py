"""The answer: bytes by category at every moment of a step, and the four peaks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Source = Literal["analytic", "traced", "replayed", "measured"]
Iteration = Literal["first", "steady"]
Phase = Literal["refresh", "step", "loss", "backward", "forward", "between"]

CATEGORIES: tuple[str, ...] = (
    "weights",
    "buffers",
    "gradients",
    "optimizer_states",
    "projectors",
    "activations",
    "logits",
    "inputs",
    "temporaries",
    "workspaces",
    "remainders",
)
RESIDENT: tuple[str, ...] = ("weights", "buffers", "optimizer_states", "projectors", "gradients")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A named candidate for the peak inside an iteration."""

    iteration: Iteration
    name: str
    """`forward_end`, `loss`, `backward_start`, `backward_end`, `layer_update`, `clip`, `refresh`, `step`, `resume`,
    `broadcast` or `evaluation`."""
    phase: Phase
    by_category: Mapping[str, int]
    """Live bytes, tensors rounded up to 512 B; only categories that are not zero."""

    @property
    def live_bytes(self) -> int:
        """All categories together."""
        return sum(self.by_category.values())

    @property
    def label(self) -> str:
        """Iteration and name, as people read them."""
        return f"{self.iteration} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A named part of the distance between a central figure and its bound."""

    name: str
    low_bytes: int
    """Counted in the central figure."""
    high_bytes: int
    """Counted in the upper bound."""
    reason: str
    """What the figures rest on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What one training step holds. Four peaks, never mixed: live, allocated, reserved, process."""

    source: Source
    moments: tuple[Moment, ...]
    resident_bytes: Mapping[str, int]
    """Exact bytes (unrounded) of weights, buffers, optimizer_states, projectors and gradients."""
    terms: tuple[Term, ...]
    """What lies between the live peak, the process figure and its upper bound."""
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    process_bytes: int
    """Reserved plus context: what nvidia-smi shows."""
    upper_bytes: int
    """Upper bound of the process figure."""

    @property
    def ranked_moments(self) -> tuple[Moment, ...]:
        """Moments by live bytes, largest first."""
        return tuple(sorted(self.moments, key=lambda moment: -moment.live_bytes))

    @property
    def peak(self) -> Moment:
        """The moment of the live peak; of equal ones, that of a steady iteration, which comes again."""
        return max(self.moments, key=lambda moment: (moment.live_bytes, moment.iteration == "steady"))

    @property
    def runner_up(self) -> Moment:
        """The largest moment of another name than the peak's (the same name in the other iteration does not count)."""
        others = [moment for moment in self.moments if moment.name != self.peak.name]
        return max(others, key=lambda moment: (moment.live_bytes, moment.iteration == "steady"))

    @property
    def peak_live_bytes(self) -> int:
        """Live tensors at the peak, 512 B rounding included."""
        return self.peak.live_bytes

    def to_dict(self) -> dict[str, Any]:
        """The FOOTPRINT object of the JSON output."""
        return {
            "source": self.source,
            "peak_live_bytes": self.peak_live_bytes,
            "peak_allocated_bytes": self.peak_allocated_bytes,
            "peak_reserved_bytes": self.peak_reserved_bytes,
            "process_bytes": self.process_bytes,
            "upper_bytes": self.upper_bytes,
            "peak_moment": self.peak.label,
            "runner_up_moment": self.runner_up.label,
            "moments": [
                {
                    "iteration": moment.iteration,
                    "name": moment.name,
                    "phase": moment.phase,
                    "live_bytes": moment.live_bytes,
                    "by_category": dict(moment.by_category),
                }
                for moment in self.moments
            ],
            "at_peak_bytes": dict(self.peak.by_category),
            "resident_bytes": dict(self.resident_bytes),
            "terms": [
                {"name": term.name, "low_bytes": term.low_bytes, "high_bytes": term.high_bytes, "reason": term.reason}
                for term in self.terms
            ],
        }
