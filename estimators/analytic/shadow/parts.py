"""A played step in parts: in every micro-batch its layers forward and backward, and what lies around them."""

from itertools import pairwise
from typing import NamedTuple

from estimators.analytic.shadow.periods import NotAlikeError
from estimators.analytic.shadow.played import Mark, Played
from estimators.analytic.shadow.tape import OUTSIDE, Kind

FORWARD, BACKWARD = "forward of layer", "backward of layer"


class Part(NamedTuple):
    """Events, and places of the marks among them."""

    start: int
    stop: int
    marks: range


class Parts(NamedTuple):
    """One micro-batch."""

    before: Part
    forward: Part
    between: Part
    backward: Part
    behind: Part


def parts_of(played: Played) -> list[Parts]:
    """Every micro-batch of a step.

    Raises:
        NotAlikeError: layers are not one after another.
    """
    borders = [place for place, (_, label, _) in enumerate(played.marks) if label in ("micro-batch", "end")]
    return [_parts(played, range(*places)) for places in pairwise(borders)]


def _parts(played: Played, places: range) -> Parts:
    first = _place(played, places, FORWARD, is_layer=True)
    after = _place(played, range(first, places.stop), FORWARD, is_layer=False)
    last = _place(played, range(after, places.stop), BACKWARD, is_layer=True)
    lowest = max(place for place in range(last, places.stop) if _is_layer(played.marks[place], BACKWARD))
    ends = (place for place in range(lowest, places.stop) if played.marks[place][1:] == (BACKWARD, str(OUTSIDE)))
    borders = [places.start, first, after, last, next(ends, places.stop), places.stop]
    parts = [Part(played.marks[begin][0], played.marks[end][0], range(begin, end)) for begin, end in pairwise(borders)]
    return Parts(*parts)


def _is_layer(mark: Mark, label: str) -> bool:
    return mark[1] == label and mark[2].isdigit()


def _place(played: Played, places: range, label: str, *, is_layer: bool) -> int:
    for place in places:
        if played.marks[place][1] == label and played.marks[place][2].isdigit() == is_layer:
            return place
    raise NotAlikeError


def handed_on(played: Played, source: Part, *targets: Part) -> tuple[Kind, ...]:
    """What a part makes and others end, in the order of its end."""
    events, births = played.events, played.births
    return tuple(
        played.kinds[-events[position] - 1]
        for target in targets
        for position in range(target.start, target.stop)
        if events[position] < 0 and source.start <= births[position] < source.stop
    )
