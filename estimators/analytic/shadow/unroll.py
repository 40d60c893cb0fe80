"""A step of many layers from one of few: periods between the two that were played are written from what both do.

That makes the step, in every pass over the layers, that playing all layers would have made.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from estimators.analytic.shadow.periods import Pass, Periods, Place, Repeated, later
from estimators.analytic.shadow.played import Mark, Played


class _Segment(NamedTuple):
    """A stretch of the unrolled step, and where it is taken from."""

    start: int
    stop: int
    marks: range
    number: int = -1
    """Of the pass, inside one."""
    period: int = 0
    """Inside a pass: the first is 1, in the order of layers."""


def unrolled(played: Played, repeated: Repeated) -> Played:
    """The step with all its periods.

    Raises:
        NotAlikeError: it has to be played.
    """
    return _Unroller(Periods(played, repeated)).unrolled()


_Rule = tuple[list[tuple[int, int]], list[tuple[int, int]]]
"""Passes (-1: outside of all), each with how many periods beside its own; of each birth which, and how far inside."""


class _Unroller:
    """Writes the unrolled step; its periods are numbered from 1 to `last` in the order of layers."""

    def __init__(self, periods: Periods) -> None:
        self._periods = periods
        self._played = periods.played
        self._passes = periods.passes
        first, self._period, self._more = periods.repeated
        self._behind = first + 2 * self._period
        """The layer behind the two periods."""
        self._last = self._more + 2
        self._seen = [self._new_positions(*two) for two in ((1, self._last), (1, 2), (self._last - 1, self._last))]
        """New positions by old ones: as seen from outside, by the first period, and by the last one."""
        self._starts = [
            [self._position(number, period, 0) for period in range(self._last + 2)]
            for number in range(len(self._passes))
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
            position, place = one.stop, behind
        yield _Segment(position, len(self._played.events), range(place, len(self._played.marks)))

    def _detail(self, segment: _Segment, label: str, detail: str) -> str:
        if segment.number < 0:
            is_behind = detail.isdigit() and int(detail) >= self._behind
            return later(label, detail, self._period * self._more * is_behind)
        one = self._passes[segment.number]
        taken_from = 1 + ((segment.start > one.start) != one.is_backward)
        return later(label, detail, self._period * (segment.period - taken_from))

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

    def _rule(self, one: Pass, table: Sequence[int], at_marks: bool) -> _Rule:
        first, second, behind = one.marks if at_marks else tuple(one.start + rank * one.length for rank in range(3))
        births = table[first:second], table[second:behind]
        families: dict[tuple[int, int], int] = {}
        said: list[tuple[int, int]] = []
        for birth, then in zip(*(reversed(births) if one.is_backward else births), strict=True):
            if birth >= 0:
                number, beside, offset = self._agreed(birth, then)
                said.append((families.setdefault((number, beside), len(families)), offset))
        return list(families), said

    def _agreed(self, birth: int, then: int) -> Place:
        """What the first period says and what the second one does: pass, periods from its own, how far inside."""
        return self._periods.agreed(birth, then) or (-1, 0, self._seen[0][birth])

    def _position(self, number: int, period: int, offset: int) -> int:
        one = self._passes[number]
        rank = self._last - period if one.is_backward else period - 1
        return one.start + self._added(number) + rank * one.length + offset

    def _added(self, passes: int) -> int:
        """Events written in so many passes."""
        return self._more * sum(one.length for one in self._passes[:passes])
