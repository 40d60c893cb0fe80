"""One run on the device, whatever comes of it."""

from dataclasses import dataclass
from typing import Any, Literal

from estimators.footprint import Footprint
from estimators.workload import Workload
from galore_mem.tapes.tape import Tape
from profiles.records import Outcome

STEPS = 3
"""A first step, a steady one, and one that recomputes projectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What became of a run."""

    outcome: Outcome
    footprint: Footprint | None
    tapes: tuple[Tape, ...]
    attention_kernel: str
    environment: dict[str, str]
    notes: tuple[str, ...]


def measure(workload: Workload, device: Literal["cuda", "cpu"], steps: int = STEPS) -> Measurement:
    """Run the canonical step and say what it held, or that it ran out of memory.

    Raises:
        NoDeviceError: no GPU that torch can use.
        GaloreMemError: a missing library, or a model that cannot be built.
    """
    from galore_mem.answers.profile import profile

    result = profile(workload, device=device, steps=steps, overhead=False)
    if result.ending == "interrupted":
        raise KeyboardInterrupt  # a row that was broken off is no measurement
    ran_out = result.ending == "out-of-memory"
    return Measurement(
        outcome="out-of-memory" if ran_out else "measured",
        footprint=None if ran_out else result.footprint,
        tapes=(result.tape,),
        attention_kernel=result.attention_kernel,
        environment=plain_environment(result.environment),
        notes=result.notes,
    )


def plain_environment(found: dict[str, Any]) -> dict[str, str]:
    """Every entry as one line of text."""
    return {name: " ".join(str(value).split()) for name, value in found.items()}
