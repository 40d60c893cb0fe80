"""Layers that repeat: where kinds of layers alternate, two periods of them that are alike tell all the others.

Both do the same, and what they end was made at the same places: by themselves, by the period beside them, or outside of
all. `unroll` writes the periods between the two from that, `fold` lets one stand for all.
"""

from functools import cached_property
from typing import NamedTuple

from estimators.analytic.shadow.played import Played


class NotAlikeError(Exception):
    """The two periods differ, or something knows them one by one: the step has to be played."""


class Repeated(NamedTuple):
    """Layers that repeat: two periods of them are alike, those before and behind may be special."""

    first: int
    """The layer that begins the first of the two, as it is played."""
    period: int
    """Layers of one."""
    more: int
    """Periods between the two that are not played."""

    @classmethod
    def of(cls, start: int, layers: int, period: int, special: int = 1) -> "Repeated":
        """What repeats among so many layers from `start` on, where so many periods at either end may be special."""
        return cls(start + special * period, period, max(0, (layers - (2 * special + 1) * period - 1) // period))


class Pass(NamedTuple):
    """One pass over the two periods, which lie side by side."""

    start: int
    """Position of its first event."""
    length: int
    """Events of one period."""
    marks: tuple[int, int, int]
    """Places of the marks with which the first period in time begins, the second, and what comes behind."""
    is_backward: bool

    @property
    def middle(self) -> int:
        """Position of the first event of the second period in time."""
        return self.start + self.length

    @property
    def stop(self) -> int:
        """Position behind both."""
        return self.start + 2 * self.length


Place = tuple[int, int, int]
"""A position in one of the two periods: the pass, which of the two, and how far inside."""


class Periods:
    """The two periods of a played step, in every pass over its layers.

    Raises:
        NotAlikeError: they differ.
    """

    def __init__(self, played: Played, repeated: Repeated) -> None:
        self.played = played
        self.repeated = repeated
        self.passes = _passes(played, repeated.first, repeated.period)
        for one in self.passes:
            _require_alike(played, one, repeated.period)
        if self.places[played.product] is not None:
            raise NotAlikeError
        self._require_ends_alike()

    @cached_property
    def places(self) -> list[Place | None]:
        """Of each position, None outside of them; the first period is 1, in the order of layers."""
        found: list[Place | None] = [None] * (len(self.played.events) + 1)
        for number, one in enumerate(self.passes):
            for rank, own in enumerate((2, 1) if one.is_backward else (1, 2)):
                start = one.start + rank * one.length
                found[start : start + one.length] = [(number, own, offset) for offset in range(one.length)]
        return found

    def agreed(self, birth: int, then: int) -> Place | None:
        """What the first period says of a birth and what the second one does: pass, periods from its own, how far.

        None where both mean the same place outside.

        Raises:
            NotAlikeError: they do not say the same.
        """
        here, there = self.places[birth], self.places[then]
        if here is None and there is None and birth == then:
            return None
        one = here and (here[0], here[1] - 1, here[2])
        two = there and (there[0], there[1] - 2, there[2])
        said = one or two
        if said is None or said != (two or said):
            raise NotAlikeError
        return said

    def _require_ends_alike(self) -> None:
        """Nothing from outside ends, one by one, what the periods made: were there three, all would end alike."""
        events, births, places = self.played.events, self.played.births, self.places
        ended = [[bytearray(one.length) for _ in range(4)] for one in self.passes]
        for position, birth in enumerate(births):
            made = places[birth] if events[position] < 0 else None
            if made is not None:
                number, period, offset = made
                own = places[position]
                seen_as = 2 * period - 1 if own is None else period + own[1] - 1
                ended[number][seen_as][offset] = 1
        for one in self.passes:
            for position in range(one.start, one.middle):
                if events[position] < 0:
                    births_of_both = births[position], births[position + one.length]
                    said = self.agreed(*(reversed(births_of_both) if one.is_backward else births_of_both))
                    if said is not None:
                        ended[said[0]][2 + said[1]][said[2]] = 1
        if any(first != second or second != third for _, first, second, third in ended):
            raise NotAlikeError


def _passes(played: Played, first: int, period: int) -> list[Pass]:
    found: list[Pass] = []
    borders = {
        "forward of layer": (first, first + period, first + 2 * period),
        "backward of layer": (first + 2 * period - 1, first + period - 1, first - 1),
    }
    begins = [place for place, mark in enumerate(played.marks) if mark[1] == "micro-batch"]
    for begin, end in zip(begins, [*begins[1:], len(played.marks)], strict=True):
        for label, layers in borders.items():
            known: dict[str, int] = {}
            for place in range(begin, end):
                if played.marks[place][1] == label:
                    known.setdefault(played.marks[place][2], place)
            one, two, behind = (known.get(str(layer), -1) for layer in layers)
            start, middle, stop = (played.marks[place][0] for place in (one, two, behind))
            if not 0 <= one < two < behind or middle - start != stop - middle:
                raise NotAlikeError
            found.append(Pass(start, middle - start, (one, two, behind), label == "backward of layer"))
    return found


def _require_alike(played: Played, one: Pass, period: int) -> None:
    start, middle, stop = one.start, one.middle, one.stop
    first, second, behind = one.marks
    shift = -period if one.is_backward else period
    marks = [
        (position + one.length, label, later(label, detail, shift))
        for position, label, detail in played.marks[first:second]
    ]
    if played.events[start:middle] != played.events[middle:stop] or marks != [*played.marks[second:behind]]:
        raise NotAlikeError


def later(label: str, detail: str, layers: int) -> str:
    """What a mark of a layer tells, so many layers later."""
    is_layer = label in ("forward of layer", "backward of layer") and detail.isdigit()
    return str(int(detail) + layers) if is_layer else detail
