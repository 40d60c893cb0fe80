"""Bytes by category after every event, thinned out for drawing with every peak kept."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from galore_mem.answers.report.lives import Lives
from galore_mem.answers.report.spans import Span

MOST_POINTS = 16_000
_POINTS_PER_BUCKET = 4
MOST_PEAKS = MOST_POINTS // 4
"""Stretches whose own peaks are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The points drawn, in columns of one length. Between two points nothing rises above both of them."""

    events: int
    """Events of the recording; a point stands for the state after its event."""
    event: Sequence[int]
    by_category: dict[str, Sequence[int]]
    """Live bytes, each request rounded up to 512 B; categories that are ever alive."""
    allocated: Sequence[int]
    reserved: Sequence[int]
    life: Sequence[int]
    """The block that the event concerns: its number plus one when born, negative when freed, 0 for none."""
    time_us: Sequence[int] | None
    is_thinned: bool


def timeline_of(
    lives: Lives,
    categories: Sequence[str],
    category_of: Sequence[int],
    allocated: Sequence[int],
    reserved: Sequence[int],
    spans: Sequence[Span] = (),
    most_points: int = MOST_POINTS,
) -> Timeline:
    """Choose the points and read the categories there.

    Args:
        lives: the blocks.
        categories: names.
        category_of: of each block, its position in `categories`.
        allocated: the allocator's blocks in bytes after each event; where the replay ended early, so does the timeline.
        reserved: what it held.
        spans: stretches whose own peaks are kept as well, unless there are too many of them.
        most_points: about how many points are drawn.
    """
    events = min(lives.events, len(reserved))
    some = spans if len(spans) <= MOST_PEAKS else ()
    kept = points_kept(allocated[:events], reserved[:events], some, most_points)
    kept = sorted({*kept, *_peaks_by_category(lives, category_of, len(categories), events)})
    columns = _sampled(lives, category_of, len(categories), kept)
    times = lives.tape.events.known.get("time_us")
    return Timeline(
        events=lives.events,
        event=array("q", kept),
        by_category={name: column for name, column in zip(categories, columns, strict=True) if any(column)},
        allocated=array("q", map(allocated.__getitem__, kept)),
        reserved=array("q", map(reserved.__getitem__, kept)),
        life=array("q", map(lives.at_event.__getitem__, kept)),
        time_us=None if times is None else array("q", (times[lives.event_rows[event]] for event in kept)),
        is_thinned=len(kept) < events,
    )


def points_kept(
    allocated: Sequence[int], reserved: Sequence[int], spans: Sequence[Span] = (), most_points: int = MOST_POINTS
) -> list[int]:
    """Events to draw: first and last, and of each bucket the highest and lowest allocated and the highest reserved.

    Of every span, its highest allocated event is kept too.
    """
    events = len(allocated)
    if events <= most_points:
        return list(range(events))
    width = -(-events * _POINTS_PER_BUCKET // most_points)
    kept = {0, events - 1}
    for start in range(0, events, width):
        stop = min(start + width, events)
        kept.add(_highest(allocated, start, stop))
        kept.add(_lowest(allocated, start, stop))
        kept.add(_highest(reserved, start, stop))
        kept.add(stop - 1)
    for span in spans:
        if span.start < min(span.stop, events):
            kept.add(_highest(allocated, span.start, min(span.stop, events)))
    return sorted(kept)


def _highest(values: Sequence[int], start: int, stop: int) -> int:
    part = values[start:stop]
    return start + part.index(max(part))


def _lowest(values: Sequence[int], start: int, stop: int) -> int:
    part = values[start:stop]
    return start + part.index(min(part))


def _peaks_by_category(lives: Lives, category_of: Sequence[int], count: int, events: int) -> list[int]:
    """The event of each category's highest value."""
    totals, highest, at = _start(lives, category_of, count), [0] * count, [-1] * count
    rounded = lives.rounded
    for event, number in enumerate(lives.at_event[:events]):
        if number > 0:
            category = category_of[number - 1]
            totals[category] = total = totals[category] + rounded[number - 1]
            if total > highest[category]:
                highest[category], at[category] = total, event
        elif number:
            totals[category_of[-number - 1]] -= rounded[-number - 1]
    return [event for event in at if event >= 0]


def _start(lives: Lives, category_of: Sequence[int], count: int) -> list[int]:
    totals = [0] * count
    for number, birth in enumerate(lives.birth):
        if birth >= 0:
            break
        totals[category_of[number]] += lives.rounded[number]
    return totals


def _sampled(lives: Lives, category_of: Sequence[int], count: int, kept: Sequence[int]) -> list["array[int]"]:
    totals = _start(lives, category_of, count)
    columns = [array("q") for _ in range(count)]
    rounded, at_event = lives.rounded, lives.at_event
    position = 0
    for event in kept:
        for number in at_event[position : event + 1]:
            if number > 0:
                totals[category_of[number - 1]] += rounded[number - 1]
            elif number:
                totals[category_of[-number - 1]] -= rounded[-number - 1]
        position = event + 1
        for column, total in zip(columns, totals, strict=True):
            column.append(total)
    return columns
