"""What appears and goes while the backward passes of a per-layer update go on: states, and sums of gradients."""

from functools import cached_property, lru_cache
from operator import add
from typing import get_args

from estimators.analytic.course import Course
from estimators.analytic.layout import Layout, Taking
from estimators.analytic.stepping import Categories, Stepping, plus, times
from estimators.analytic.walk import Pass
from estimators.footprint import Iteration

Counts = dict[tuple[Pass, str], int]
Takings = tuple[Taking, ...]
"""By interval as in `Layout.growth`: which gradient it takes, whether others of its kind follow, and how many
repetitions are passed over before it, where it is the first of the last one."""
_SHARED: tuple[Pass, str] = ("only", "")
"""What the first parameter that needs it makes for all."""


class Growth:
    """What lives before each interval of a course, and before each parameter's update, that no course has.

    In a first iteration that are states, in any iteration of an accumulation what passes before have left.
    """

    def __init__(self, stepping: Stepping, takings: Takings, iteration: Iteration) -> None:
        self._takings = takings
        self._sharers = stepping.sharers if iteration == "first" else frozenset()
        taken = dict.fromkeys(key for key, _, _ in takings if key is not None)
        self._left = {key: stepping.left_by(iteration, *key) for key in taken} | {_SHARED: stepping.shared}
        self.totals: list[int] = []
        """Bytes before each interval."""
        self.update_totals: list[int] = []
        """Bytes before each update."""
        left = {key: sum(categories.values()) for key, categories in self._left.items()}
        if not any(left[key] for key in taken) and not self._sharers:
            self.totals = [0] * len(takings)
            self.update_totals = [0] * sum(key is not None for key, _, _ in takings)
            return
        total, block_total, to_share = 0, 0, bool(self._sharers)
        for key, in_block, passed_over in takings:
            if passed_over is not None:
                total, block_total = total + passed_over * block_total, 0
            self.totals.append(total)
            if key is None:
                continue
            if to_share and self._shares(key):
                total, to_share = total + left[_SHARED], False
            self.update_totals.append(total)
            total += left[key]
            if in_block:
                block_total += left[key]

    def _shares(self, key: tuple[Pass, str]) -> bool:
        return key[0] in ("only", "closing") and key[1] in self._sharers

    @cached_property
    def _counts(self) -> tuple[list[Counts], list[Counts]]:
        """Gradients that have been taken before each interval and each update, by pass and group."""
        found, before_updates = list[Counts](), list[Counts]()
        counts: Counts = {}
        block: list[tuple[Pass, str]] = []
        for key, in_block, passed_over in self._takings:
            if passed_over is not None:
                counts = {key: count + passed_over * block.count(key) for key, count in counts.items()}
                block = []
            found.append(counts)
            if key is None:
                continue
            if self._shares(key):
                counts = {**counts, _SHARED: 1}
            before_updates.append(counts)
            counts = {**counts, key: counts.get(key, 0) + 1}
            if in_block:
                block.append(key)
        return found, before_updates

    @cached_property
    def categories(self) -> list[Categories]:
        """The same by category, before each interval."""
        return [self._categories(counts) for counts in self._counts[0]]

    @cached_property
    def update_categories(self) -> list[Categories]:
        """Before each update."""
        return [self._categories(counts) for counts in self._counts[1]]

    def _categories(self, counts: Counts) -> Categories:
        return plus(*(times(self._left[key], count) for key, count in counts.items()))


class Growths:
    """The growth of both iterations."""

    def __init__(self, stepping: Stepping, layout: Layout) -> None:
        self._stepping = stepping
        self._layout = layout

    @cached_property
    def first(self) -> Growth:
        """While states are made."""
        return Growth(self._stepping, tuple(self._layout.growth), "first")

    @cached_property
    def steady(self) -> Growth:
        """Only sums of gradients come and go."""
        return Growth(self._stepping, tuple(self._layout.growth), "steady")

    def of(self, iteration: Iteration) -> Growth:
        """One of them."""
        return self.first if iteration == "first" else self.steady

    @cached_property
    def largest_update_bytes(self) -> list[int]:
        """The most that lives, in any iteration, while each gradient is taken: its own refresh or step and states.

        What forward and backward hold there is to be added.
        """
        return _largest_updates(self._stepping, _updates_only(self._layout))


class _Updates:
    """The updates of a layout in their order, whatever lies between them; those of equal ones are one object."""

    def __init__(self, takings: Takings) -> None:
        self.takings = takings
        self.places = tuple(key for key, _, _ in takings if key is not None)


@lru_cache(maxsize=512)
def _updates(takings: Takings) -> _Updates:
    return _Updates(takings)


@lru_cache(maxsize=512)
def _updates_only(layout: Layout) -> _Updates:
    return _updates(tuple(taking for taking in layout.growth if taking[0] is not None or taking[2] is not None))


@lru_cache(maxsize=4096)
def _largest_updates(stepping: Stepping, updates: _Updates) -> list[int]:
    """See `Growths.largest_update_bytes`; layouts of many batches share their updates."""
    found: list[list[int]] = []
    for iteration in get_args(Iteration):
        states = stepping.states_bytes if iteration == "steady" else 0
        growth = Growth(stepping, updates.takings, iteration)
        around = [nbytes + states for nbytes in growth.update_totals]
        found += [list(map(add, around, added)) for added in stepping.update_bytes(iteration, updates.places).values()]
    return list(map(max, *found))


@lru_cache(maxsize=4096)
def _growths(stepping: Stepping, layout: Layout) -> Growths:
    return Growths(stepping, layout)


def growth_of(stepping: Stepping, course: Course) -> Growths:
    """The growth of a method along a course; computed once, for it depends on no batch."""
    return _growths(stepping, course.layout)
