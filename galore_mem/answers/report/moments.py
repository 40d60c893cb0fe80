"""Peaks of a recording: over all, at every moment of a first and of a steady iteration, and by phase."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from galore_mem.answers.report.lives import Lives
from galore_mem.answers.report.spans import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The largest live value of a stretch."""

    iteration: str
    name: str
    """The moment, or where a recording does not tell moments, the phase."""
    phase: str
    event: int
    """-1 where the largest value is what lived before the first event."""
    live_bytes: int
    by_category: Mapping[str, int]

    @property
    def label(self) -> str:
        """Iteration and name."""
        return f"{self.iteration} {self.name}".strip()


MOMENT_PHASES = {
    "forward_end": "forward",
    "loss": "loss",
    "backward_start": "backward",
    "backward_end": "backward",
    "layer_update": "step",
    "clip": "step",
    "step": "step",
    "refresh": "refresh",
    "evaluation": "forward",
    "broadcast": "between",
}


def moments_of(
    lives: Lives, category_names: Sequence[str], live: Sequence[int], iterations: Sequence[Span], phases: Sequence[Span]
) -> tuple[Peak, ...]:
    """The peak of every moment, in the first iteration and in the later ones.

    A stretch's first value is what lives when it begins.
    """
    found: dict[tuple[str, str], tuple[int, int, str]] = {}
    for span, phase in _stretches(lives, phases, len(live)):
        event, value = _highest(live, span)
        key = (_iteration_at(iterations, span.start), span.name)
        if value > found.get(key, (-1, 0, ""))[0]:
            found[key] = (value, event, phase)
    return tuple(
        Peak(
            iteration=iteration,
            name=name,
            phase=phase,
            event=event,
            live_bytes=value,
            by_category=categories_at(lives, category_names, event),
        )
        for (iteration, name), (value, event, phase) in found.items()
    )


def categories_at(lives: Lives, category_names: Sequence[str], event: int) -> dict[str, int]:
    """Live bytes by category after an event."""
    totals: dict[str, int] = {}
    for number in lives.alive_after(event):
        name = category_names[number]
        totals[name] = totals.get(name, 0) + lives.rounded[number]
    return totals


def _stretches(lives: Lives, phases: Sequence[Span], events: int) -> list[tuple[Span, str]]:
    marks = [mark for mark in lives.tape.marks if mark.kind == "moment"]
    if not marks:
        return [(phase, phase.name) for phase in phases if phase.name != "between" and phase.start < events]
    starts = [lives.event_of_row(mark.row) for mark in marks]
    return [
        (Span(name=mark.name, start=start, stop=stop), MOMENT_PHASES[mark.name])
        for mark, start, stop in zip(marks, starts, [*starts[1:], lives.events], strict=True)
        if mark.name in MOMENT_PHASES and start <= stop and start <= events
    ]


def _highest(live: Sequence[int], span: Span) -> tuple[int, int]:
    before = live[span.start - 1] if span.start else 0
    values = live[span.start : span.stop]
    if not values or before > max(values):
        return span.start - 1, before
    top = max(values)
    return span.start + values.index(top), top


def _iteration_at(iterations: Sequence[Span], event: int) -> str:
    if not iterations:
        return ""
    return "first" if event < iterations[0].stop else "steady"
