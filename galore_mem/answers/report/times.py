"""How long each step took, phase by phase."""

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from galore_mem.answers.report.lives import Lives
from galore_mem.answers.report.spans import PHASES, Span

MOST_STEPS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """One step."""

    name: str
    seconds: Mapping[str, float]
    """By phase; `whole` where no phases are known."""


def step_times(
    lives: Lives, phases: Sequence[Span], iterations: Sequence[Span], metadata: Mapping[str, Any]
) -> tuple[StepTime, ...]:
    """As the recorder measured them, or else from the times of the events at which phases begin."""
    measured = metadata.get("steps")
    if isinstance(measured, list) and measured:
        return tuple(step for step in map(_measured, measured[:MOST_STEPS]) if step is not None)
    times = lives.tape.events.known.get("time_us")
    if times is None or not iterations or not any(times):
        return ()
    at = array("q", map(times.__getitem__, lives.event_rows))
    starts = [phase.start for phase in phases]
    return tuple(_timed(at, phases, starts, span) for span in iterations[:MOST_STEPS] if span.stop > span.start)


def _measured(entry: object) -> StepTime | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("seconds"), dict):
        return None
    seconds = {
        str(phase): float(value)
        for phase, value in entry["seconds"].items()
        if isinstance(value, int | float) and math.isfinite(value) and value >= 0
    }
    name = f"step {entry.get('number', '')}".strip()
    return StepTime(name=f"{name} ({entry['kind']})" if isinstance(entry.get("kind"), str) else name, seconds=seconds)


def _timed(at: Sequence[int], phases: Sequence[Span], starts: Sequence[int], step: Span) -> StepTime:
    last = len(at) - 1
    seconds: dict[str, float] = {}
    for phase in phases[max(0, bisect_right(starts, step.start) - 1) : bisect_left(starts, step.stop)]:
        start, stop = max(phase.start, step.start), min(phase.stop, step.stop)
        if start < stop and phase.name in PHASES and phase.name != "between":
            seconds[phase.name] = seconds.get(phase.name, 0.0) + (at[min(stop, last)] - at[start]) / 1e6
    if not seconds:
        seconds = {"whole": (at[min(step.stop, last)] - at[step.start]) / 1e6}
    return StepTime(name=step.name, seconds={phase: max(0.0, value) for phase, value in seconds.items()})
