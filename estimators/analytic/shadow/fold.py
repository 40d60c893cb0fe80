"""A step whose repeated layers are there once: of two periods that are alike one is left, and stands for all of them.

Live bytes go through such a step as through the whole one, which has the same events again and again. What each death
ends is told by the whole step only: births are left out.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, compress

from estimators.analytic.shadow.periods import Periods, Repeated, later
from estimators.analytic.shadow.played import Played, Region


def folded(played: Played, repeated: Sequence[Repeated]) -> tuple[Played, tuple[Region, ...]]:
    """The step without the second period of each that repeats, and which of its layers stand for how many.

    Raises:
        NotAlikeError: something knows them one by one.
    """
    events, marks = bytearray(b"\1") * len(played.events), bytearray(b"\1") * len(played.marks)
    """Which are left."""
    for one in repeated:
        _leave_out_seconds(Periods(played, one), events, marks)
    places = [0, *accumulate(events)]
    """Where each position comes to lie."""
    gradients = [place for place, (_, label, _) in enumerate(played.marks) if label == "gradient"]
    left = [marks[place] for place in gradients]
    found = replace(
        played,
        events=tuple(compress(played.events, events)),
        births=(),
        marks=tuple(
            (places[position], label, later(label, detail, -_fewer(detail, repeated)))
            for position, label, detail in compress(played.marks, marks)
        ),
        product=places[played.product],
        gradients=tuple(places[birth] for birth in compress(played.gradients, left)),
        lone=tuple(compress(played.lone, left)),
    )
    return found, tuple(_region(one, repeated) for one in repeated)


def _leave_out_seconds(periods: Periods, events: bytearray, marks: bytearray) -> None:
    for one in periods.passes:
        begin, then, behind = one.marks
        start = one.start if one.is_backward else one.middle
        first, last = (begin, then) if one.is_backward else (then, behind)
        events[start : start + one.length] = bytes(one.length)
        marks[first:last] = bytes(last - first)


def _fewer(detail: str, repeated: Sequence[Repeated]) -> int:
    """Layers that are left out before the one of a mark."""
    return sum(one.period for one in repeated if detail.isdigit() and int(detail) >= one.first + 2 * one.period)


def _region(one: Repeated, repeated: Sequence[Repeated]) -> Region:
    first = one.first - _fewer(str(one.first), repeated)
    return Region(first, first + one.period - 1, one.more + 2)
