"""Phases and iterations of a recording: from its marks, its events' own words, or a program's annotations."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from galore_mem.answers.report.lives import Lives
from galore_mem.tapes.tape import DeviceTape, Mark

MOST_SPANS = 24_000
"""Drawn; of more, the shortest join their neighbours."""
PHASES: tuple[str, ...] = ("between", "forward", "loss", "backward", "step", "refresh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of events."""

    name: str
    start: int
    stop: int
    """The first event behind it."""
    seconds: float | None = None


def phases_of(lives: Lives) -> tuple[Span, ...]:
    """The phases, one after another, over all events; empty where nothing tells them."""
    marks = [(lives.event_of_row(mark.row), mark.name) for mark in lives.tape.marks if mark.kind == "phase"]
    borders = marks or _annotated(lives) or _by_events(lives)
    if not borders or not lives.events:
        return ()
    if borders[0][0] > 0:
        borders.insert(0, (0, "between"))
    stops = [start for start, _ in borders[1:]] + [lives.events]
    spans: list[Span] = []
    for (start, name), stop in zip(borders, stops, strict=True):
        if start >= stop:
            continue
        if spans and spans[-1].name == name:
            spans[-1] = Span(name=name, start=spans[-1].start, stop=stop)
        else:
            spans.append(Span(name=name, start=start, stop=stop))
    return tuple(spans)


def _annotated(lives: Lives) -> list[tuple[int, str]]:
    """Borders from annotations of the optimizer's step; between them nothing is known but `between`."""
    steps = [mark for mark in lives.tape.marks if mark.name.startswith("Optimizer.step#")]
    if not steps or "phase" in lives.tape.events.known:
        return []
    return [(lives.event_of_row(mark.row), "step" if mark.kind == "start" else "between") for mark in steps]


def _by_events(lives: Lives) -> list[tuple[int, str]]:
    table = lives.tape.events
    column = table.known.get("phase")
    if column is None:
        return []
    borders: list[tuple[int, str]] = []
    previous = 0
    for event, row in enumerate(lives.event_rows):
        number = column[row]
        if number and number != previous:
            borders.append((event, table.names[number]))
            previous = number
    return borders


def fewer(spans: Sequence[Span], most: int = MOST_SPANS) -> tuple[Span, ...]:
    """For drawing: short spans join the one before them until few enough are left."""
    kept = list(spans)
    shortest = 1
    while len(kept) > most:
        shortest *= 2
        joined: list[Span] = []
        for span in kept:
            if joined and (span.stop - span.start < shortest or span.name == joined[-1].name):
                joined[-1] = Span(name=joined[-1].name, start=joined[-1].start, stop=span.stop)
            else:
                joined.append(span)
        kept = joined
    return tuple(kept)


def iterations_of(lives: Lives, phases: Sequence[Span] = ()) -> tuple[Span, ...]:
    """The iterations: marked, or each up to the end of a step of the optimizer, annotated or told by its stacks."""
    tape = lives.tape
    marked = [(lives.event_of_row(mark.row), mark) for mark in tape.marks if mark.kind == "iteration"]
    if marked:
        stops = [event for event, _ in marked[1:]] + [lives.events]
        times = [mark.time_us for _, mark in marked[1:]] + [_last_time(tape)]
        return tuple(
            Span(
                name=mark.name or f"step {number}",
                start=start,
                stop=stop,
                seconds=None if mark.time_us is None or end is None else (end - mark.time_us) / 1e6,
            )
            for number, ((start, mark), stop, end) in enumerate(zip(marked, stops, times, strict=True), 1)
        )
    return _between_steps(lives) or _by_phases(lives, phases)


def _between_steps(lives: Lives) -> tuple[Span, ...]:
    ends = [mark for mark in lives.tape.marks if mark.kind == "end" and mark.name.startswith("Optimizer.step#")]
    spans: list[Span] = []
    before: Mark | None = None
    for number, mark in enumerate(ends, 1):
        start, stop = spans[-1].stop if spans else 0, lives.event_of_row(mark.row)
        seconds = None
        if before is not None and mark.time_us is not None and before.time_us is not None:
            seconds = (mark.time_us - before.time_us) / 1e6
        if stop > start:
            spans.append(Span(name=f"step {number}", start=start, stop=stop, seconds=seconds))
        before = mark
    return tuple(spans)


def _by_phases(lives: Lives, phases: Sequence[Span]) -> tuple[Span, ...]:
    """A step of the optimizer and then a forward pass: a new iteration."""
    known = [phase for phase in phases if phase.name != "between"]
    borders = [
        after.start
        for before, after in pairwise(known)
        if before.name in ("step", "refresh") and after.name == "forward"
    ]
    if not borders:
        return ()
    return tuple(
        Span(name=f"step {number}", start=start, stop=stop)
        for number, (start, stop) in enumerate(zip([0, *borders], [*borders, lives.events], strict=True), 1)
    )


def _last_time(tape: DeviceTape) -> int | None:
    times = tape.events.known.get("time_us")
    return times[-1] if times else None
