"""States that appear while the first backward of a per-layer update goes on."""

from functools import cached_property
from operator import add

from estimators.analytic.course import Course
from estimators.analytic.layout import Layout
from estimators.analytic.stepping import Categories, Stepping, plus, times


class Growth:
    """States alive before each interval of a course, and before each parameter's update."""

    def __init__(self, stepping: Stepping, layout: Layout, repetitions: int) -> None:
        self._stepping = stepping
        self._layout = layout
        self._repetitions = repetitions
        self.totals: list[int] = []
        """Bytes before each interval."""
        own, total, block_total = stepping.own_bytes, 0, 0
        for gradient, in_block, opens_last in layout.growth:
            if opens_last:
                total += (repetitions - 2) * block_total
            self.totals.append(total)
            if gradient:
                total += own[gradient]
                if in_block:
                    block_total += own[gradient]
        self.update_totals = [self.totals[index] for index in layout.updates]
        """Bytes before each update."""

    @cached_property
    def largest_update_bytes(self) -> list[int]:
        """The most that lives, in any iteration, while each parameter is updated: its own refresh or step and states.

        What forward and backward hold there is to be added.
        """
        stepping, layout = self._stepping, self._layout
        steady = stepping.update_bytes("steady", layout).values()
        growing = [
            list(map(add, self.update_totals, added)) for added in stepping.update_bytes("first", layout).values()
        ]
        return list(map(max, *growing, *([nbytes + stepping.states_bytes for nbytes in added] for added in steady)))

    @cached_property
    def _counts(self) -> list[dict[str, int]]:
        """Parameters that have stepped before each interval, by group."""
        found: list[dict[str, int]] = []
        counts: dict[str, int] = {}
        block: list[str] = []
        for gradient, in_block, opens_last in self._layout.growth:
            if opens_last:
                counts = {name: count + (self._repetitions - 2) * block.count(name) for name, count in counts.items()}
            found.append(counts)
            if gradient:
                counts = {**counts, gradient: counts.get(gradient, 0) + 1}
                if in_block:
                    block.append(gradient)
        return found

    @cached_property
    def categories(self) -> list[Categories]:
        """States before each interval."""
        return [self._categories(counts) for counts in self._counts]

    @cached_property
    def update_categories(self) -> list[Categories]:
        """States before each update."""
        return [self.categories[index] for index in self._layout.updates]

    def _categories(self, counts: dict[str, int]) -> Categories:
        return plus(*(times(self._stepping.own[name], count) for name, count in counts.items()))


_GROWTHS: dict[tuple[Stepping, Layout, int], Growth] = {}
_MOST_GROWTHS = 4096


def states_before(stepping: Stepping, course: Course) -> Growth:
    """The growth of a method's states along a course; computed once, for it depends on no batch."""
    key = (stepping, course.layout, course.repetitions)
    growth = _GROWTHS.get(key)
    if growth is None:
        if len(_GROWTHS) >= _MOST_GROWTHS:
            _GROWTHS.clear()
        growth = _GROWTHS[key] = Growth(stepping, course.layout, course.repetitions)
    return growth
