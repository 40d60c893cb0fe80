"""A step of many layers from one of few: where kinds of layers alternate, two periods that are alike tell the others.

Both do the same, and what they end was made at the same places: by themselves, by the period beside them, or outside of
all. Periods between the two are written from that, in every pass over the layers, and make the step that playing all
layers would have made.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from estimators.analytic.shadow.played import Mark, Played


class NotAlikeError(Exception):
    """The two periods differ, or something knows them one by one: the step has to be played."""


class _Pass(NamedTuple):
    """One pass over the two periods, which lie side by side."""

    start: int
    """Position of its first event."""
    length: int
    """Events of one period."""
    marks: tuple[int, int, int]
    """Places of the marks with which the first period in time begins, the second, and what comes behind."""
    is_backward: bool


class _Segment(NamedTuple):
    """A stretch of the unrolled step, and where it is taken from."""

    start: int
    stop: int
    marks: range
    number: int = -1
    """Of the pass, inside one."""
    period: int = 0
    """Inside a pass: the first is 1, in the order of layers."""


_Place = tuple[int, int, int]
"""A position in one of the two periods: the pass, which of the two, and how far inside."""


class Repeated(NamedTuple):
    """Layers that repeat: two periods of them are alike, those before and behind may be special."""

    first: int
    """The layer that begins the first of the two."""
    period: int
    """Layers of one."""
    more: int
    """Periods between the two that are not played."""

    @classmethod
    def of(cls, start: int, layers: int, period: int, special: int = 1) -> "Repeated":
        """What repeats among so many layers from `start` on, where so many periods at either end may be special."""
        return cls(start + special * period, period, max(0, (layers - (2 * special + 1) * period - 1) // period))


def unrolled(played: Played, repeated: Repeated) -> Played:
    """The step with all its periods.

    Raises:
        NotAlikeError: it has to be played.
    """
    first, period, more = repeated
    passes = _passes(played, first, period)
    for one in passes:
        _require_alike(played, one, period)
    return _Unroller(played, passes, first, period, more).unrolled()


def _passes(played: Played, first: int, period: int) -> list[_Pass]:
    found: list[_Pass] = []
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
            found.append(_Pass(start, middle - start, (one, two, behind), label == "backward of layer"))
    return found


def _require_alike(played: Played, one: _Pass, period: int) -> None:
    start, middle, stop = one.start, one.start + one.length, one.start + 2 * one.length
    first, second, behind = one.marks
    shift = -period if one.is_backward else period
    marks = [(position + one.length, label, _later(label, detail, shift)) for position, label, detail in played.marks]
    if played.events[start:middle] != played.events[middle:stop] or marks[first:second] != [
        *played.marks[second:behind]
    ]:
        raise NotAlikeError


def _later(label: str, detail: str, layers: int) -> str:
    """What a mark of a layer tells, so many layers later."""
    is_layer = label in ("forward of layer", "backward of layer") and detail.isdigit()
    return str(int(detail) + layers) if is_layer else detail


_Rule = tuple[list[tuple[int, int]], list[tuple[int, int]]]
"""Passes (-1: outside of all), each with how many periods beside its own; of each birth which, and how far inside."""


class _Unroller:
    """Writes the unrolled step; its periods are numbered from 1 to `last` in the order of layers."""

    def __init__(self, played: Played, passes: list[_Pass], first: int, period: int, more: int) -> None:
        self._played = played
        self._passes = passes
        self._behind = first + 2 * period
        """The layer behind the two periods."""
        self._period = period
        self._more = more
        self._last = more + 2
        self._places: list[_Place | None] = [None] * (len(played.events) + 1)
        for number, one in enumerate(passes):
            for rank, own in enumerate((2, 1) if one.is_backward else (1, 2)):
                start = one.start + rank * one.length
                self._places[start : start + one.length] = [(number, own, offset) for offset in range(one.length)]
        self._seen = [
            self._new_positions(*periods) for periods in ((1, self._last), (1, 2), (self._last - 1, self._last))
        ]
        """New positions by old ones: as seen from outside, by the first period, and by the last one."""
        self._starts = [
            [self._position(number, period, 0) for period in range(self._last + 2)] for number in range(len(passes))
        ]
        """Of each pass, by period."""
        self._rules: dict[tuple[int, bool], _Rule] = {}

    def _new_positions(self, first: int, second: int) -> list[int]:
        """Where each position comes to lie, if these stand for the two periods."""
        found: list[int] = []
        for number, one in enumerate(self._passes):
            found += range(len(found) + self._added(number), one.start + self._added(number))
            for period in (second, first) if one.is_backward else (first, second):
                start = self._position(number, period, 0)
                found += range(start, start + one.length)
        end = len(self._played.events) + 1
        return [*found, *range(len(found) + self._added(len(self._passes)), end + self._added(len(self._passes)))]

    def unrolled(self) -> Played:
        played, events, births = self._played, list[int](), list[int]()
        if self._places[played.product] is not None:
            raise NotAlikeError
        marks, gradients = list[Mark](), list[int]()
        completed = iter(played.gradients)
        made = [next(completed) if label == "gradient" else -1 for _, label, _ in played.marks]
        for segment in self._segments():
            begin = len(events)
            events += played.events[segment.start : segment.stop]
            births += self._births(segment, played.births, range(segment.start, segment.stop), at_marks=False)
            for place in segment.marks:
                position, label, detail = played.marks[place]
                marks.append((begin + position - segment.start, label, self._detail(segment, label, detail)))
            gradients += self._births(segment, made, segment.marks, at_marks=True)
        self._require_ends_alike(events, births)
        return replace(
            played,
            events=tuple(events),
            births=tuple(births),
            marks=tuple(marks),
            product=self._seen[0][played.product],
            gradients=tuple(gradients),
            lone=tuple(-events[birth] for birth in gradients) if played.lone else (),
        )

    def _segments(self) -> Iterator[_Segment]:
        position = place = 0
        for number, one in enumerate(self._passes):
            first, second, behind = one.marks
            yield _Segment(position, one.start, range(place, first))
            for rank in range(self._last):
                is_second = rank == self._last - 1
                start, marks = one.start + is_second * one.length, (second, behind) if is_second else (first, second)
                period = self._last - rank if one.is_backward else rank + 1
                yield _Segment(start, start + one.length, range(*marks), number, period)
            position, place = one.start + 2 * one.length, behind
        yield _Segment(position, len(self._played.events), range(place, len(self._played.marks)))

    def _detail(self, segment: _Segment, label: str, detail: str) -> str:
        if segment.number < 0:
            is_behind = detail.isdigit() and int(detail) >= self._behind
            return _later(label, detail, self._period * self._more * is_behind)
        one = self._passes[segment.number]
        taken_from = 1 + ((segment.start > one.start) != one.is_backward)
        return _later(label, detail, self._period * (segment.period - taken_from))

    def _births(self, segment: _Segment, table: Sequence[int], keys: range, *, at_marks: bool) -> list[int]:
        """New positions of the births that a table holds by position, or by the place of a mark where one is born."""
        if segment.number >= 0 and 1 < segment.period < self._last:
            return self._between(segment, table, at_marks)
        seen = self._seen[0 if segment.number < 0 else 1 if segment.period == 1 else 2]
        return [seen[birth] for birth in table[keys.start : keys.stop] if birth >= 0]

    def _between(self, segment: _Segment, table: Sequence[int], at_marks: bool) -> list[int]:
        """The same for a period that is written: what both say, as far from it as from them."""
        key = (segment.number, at_marks)
        rule = self._rules.get(key)
        if rule is None:
            rule = self._rules[key] = self._rule(self._passes[segment.number], table, at_marks)
        families, said = rule
        starts = [self._starts[number][segment.period + beside] if number >= 0 else 0 for number, beside in families]
        return [starts[family] + offset for family, offset in said]

    def _rule(self, one: _Pass, table: Sequence[int], at_marks: bool) -> _Rule:
        first, second, behind = one.marks if at_marks else tuple(one.start + rank * one.length for rank in range(3))
        births = table[first:second], table[second:behind]
        families: dict[tuple[int, int], int] = {}
        said: list[tuple[int, int]] = []
        for birth, then in zip(*(reversed(births) if one.is_backward else births), strict=True):
            if birth >= 0:
                number, beside, offset = self._agreed(birth, then)
                said.append((families.setdefault((number, beside), len(families)), offset))
        return list(families), said

    def _agreed(self, birth: int, then: int) -> _Place:
        """What the first period says and what the second one does: pass, periods from its own, how far inside."""
        here, there = self._places[birth], self._places[then]
        if here is None and there is None and birth == then:
            return -1, 0, self._seen[0][birth]
        one = here and (here[0], here[1] - 1, here[2])
        two = there and (there[0], there[1] - 2, there[2])
        said = one or two
        if said is None or said != (two or said):
            raise NotAlikeError
        return said

    def _position(self, number: int, period: int, offset: int) -> int:
        one = self._passes[number]
        rank = self._last - period if one.is_backward else period - 1
        return one.start + self._added(number) + rank * one.length + offset

    def _added(self, passes: int) -> int:
        """Events written in so many passes."""
        return self._more * sum(one.length for one in self._passes[:passes])

    def _require_ends_alike(self, events: list[int], births: list[int]) -> None:
        """Nothing from outside ends, one by one, what the periods made."""
        ended = bytearray(len(events))
        for code, birth in zip(events, births, strict=True):
            if code < 0:
                ended[birth] = 1
        for number, one in enumerate(self._passes):
            starts = [self._position(number, period, 0) for period in range(1, self._last + 1)]
            if len({bytes(ended[start : start + one.length]) for start in starts}) > 1:
                raise NotAlikeError
