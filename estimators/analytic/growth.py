"""States that appear while the first backward of a per-layer update goes on."""

from functools import cached_property

from estimators.analytic.course import Course
from estimators.analytic.layout import Layout
from estimators.analytic.stepping import Categories, Stepping, plus, times


class Growth:
    """States alive before each interval of a course, and before each parameter's update."""

    def __init__(self, stepping: Stepping, layout: Layout, repetitions: int) -> None:
        self._stepping = stepping
        self._counts: list[dict[str, int]] = []
        """Parameters that have stepped before each interval, by group."""
        self._update_counts: list[dict[str, int]] = []
        counts: dict[str, int] = {}
        block: list[str] = []
        for interval in layout.intervals:
            stretch = layout.stretches[interval.stretch]
            if interval.opens_last:
                counts = {name: count + (repetitions - 2) * block.count(name) for name, count in counts.items()}
            self._counts.append(counts)
            if not stretch.steps:
                continue
            self._update_counts.append(counts)
            counts = {**counts, stretch.gradient: counts.get(stretch.gradient, 0) + 1}
            if stretch.block and not interval.last:
                block.append(stretch.gradient)
        self.totals = [self._total(counts) for counts in self._counts]
        self.update_totals = [self._total(counts) for counts in self._update_counts]

    def _total(self, counts: dict[str, int]) -> int:
        own = self._stepping.own_bytes
        return sum(own[name] * count for name, count in counts.items())

    @cached_property
    def categories(self) -> list[Categories]:
        """States before each interval."""
        return [self._categories(counts) for counts in self._counts]

    @cached_property
    def update_categories(self) -> list[Categories]:
        """States before each update."""
        return [self._categories(counts) for counts in self._update_counts]

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
