"""The course of live bytes through a played step, evaluated for one batch: its peaks, and how each is composed."""

from collections import Counter
from collections.abc import Hashable
from itertools import accumulate
from typing import NamedTuple

from estimators.analytic.layout import PHASES, Layout, layout_of
from estimators.analytic.shadow.play import play
from estimators.analytic.structure import PLAYED_LAYERS, course_key, structure_of, symbol_sizes
from estimators.analytic.tensors import ALIGNMENT_BYTES
from estimators.workload import Workload

Categories = dict[str, int]


class Point(NamedTuple):
    """A place in the course."""

    total_bytes: int
    interval: int
    event: int
    """Position in the played events."""


class Course:
    """Live bytes of everything that forward and backward make, from an empty start.

    Args:
        layout: the played step, cut.
        symbols: numbers behind its symbols.
        layers: of the model.
    """

    def __init__(self, layout: Layout, symbols: dict[str, int], layers: int) -> None:
        self.layout = layout
        self.repetitions = layers - PLAYED_LAYERS + 1 if layers > PLAYED_LAYERS else 1
        elements, repetitions = layout.elements(symbols), self.repetitions
        self.sizes = [
            -(-elements[dims] * itemsize // ALIGNMENT_BYTES) * ALIGNMENT_BYTES * (repetitions if everywhere else 1)
            for dims, itemsize, everywhere in layout.kinds
        ]
        table = [0, *self.sizes, *(-size for size in reversed(self.sizes))]
        self._values = list(accumulate(map(table.__getitem__, layout.played.events), initial=0))
        """Live bytes before each event and after the last, as played."""
        self._shifts: list[int] = []
        """What the repetitions that are not played add to each interval."""
        self.interval_bytes: list[int] = []
        """Largest live bytes in each interval."""
        self._evaluate()
        ends, stretches = self._values, layout.stretches
        self.update_bytes = [
            ends[stretches[layout.intervals[index].stretch].stop] + self._shifts[index] for index in layout.updates
        ]
        """Live bytes where each stepping gradient is complete."""
        self.peaks = {name: self._peak(name) for name in PHASES}
        """The largest point of each moment."""
        self.peak_bytes = max(self.interval_bytes)
        self.end_bytes = self._values[-1] + self._shifts[-1]

    def _evaluate(self) -> None:
        values, stretches, more = self._values, self.layout.stretches, self.repetitions - 1
        done, pending = 0, 0
        for interval in self.layout.intervals:
            stretch = stretches[interval.stretch]
            if pending and not interval.last:
                done += pending
                pending = 0
            if interval.opens_last:
                pending = more * self._growth(stretch.block)
            shift = done + pending if interval.last else done
            self._shifts.append(shift)
            self.interval_bytes.append(max(values[stretch.start : stretch.stop + 1]) + shift)

    def _growth(self, block: int) -> int:
        """Live bytes gained in one pass over the middle layer."""
        inside = [stretch for stretch in self.layout.stretches if stretch.block == block]
        return self._values[inside[-1].stop] - self._values[inside[0].start]

    def _peak(self, window: str) -> Point:
        return self.point(max(self.layout.windows[window], key=self.interval_bytes.__getitem__))

    def point(self, interval: int) -> Point:
        """The largest point of an interval."""
        stretch = self.layout.stretches[self.layout.intervals[interval].stretch]
        inside = self._values[stretch.start : stretch.stop + 1]
        total = self.interval_bytes[interval]
        return Point(total, interval, stretch.start + inside.index(total - self._shifts[interval]))

    def update(self, number: int) -> Point:
        """Where the gradient of an update is complete."""
        interval = self.layout.updates[number]
        stretch = self.layout.stretches[self.layout.intervals[interval].stretch]
        return Point(self.update_bytes[number], interval, stretch.stop)

    @property
    def end(self) -> Point:
        """After backward: gradients, inputs, and what else outlives it."""
        interval = len(self.layout.intervals) - 1
        return Point(self.end_bytes, interval, len(self._values) - 1)

    def categories(self, point: Point) -> Categories:
        """Live bytes by category at a point; they sum up to its total."""
        events, counts = self.layout.played.events, Counter[int]()
        here = self.layout.intervals[point.interval]
        self._count(counts, events[: point.event], 1)
        more = self.repetitions - 1
        current = self.layout.stretches[here.stretch]
        for stretch in self.layout.stretches:
            passed = stretch.block and (stretch.start < current.start or stretch.block == current.block)
            if passed and more and (stretch.block != current.block or here.last):
                self._count(counts, events[stretch.start : stretch.stop], more)
        out: Categories = {}
        for code, count in counts.items():
            if count:
                category = self.layout.played.kinds[code - 1].category
                out[category] = out.get(category, 0) + count * self.sizes[code - 1]
        return {category: nbytes for category, nbytes in out.items() if nbytes}

    @staticmethod
    def _count(counts: Counter[int], events: tuple[int, ...], times: int) -> None:
        for code, count in Counter(events).items():
            counts[abs(code)] += count * times if code > 0 else -count * times


_COURSES: dict[tuple[Hashable, ...], Course] = {}
_MOST_COURSES = 16384


def course_of(workload: Workload, kernel: str) -> Course:
    """The course of a workload's forward and backward, without weights, buffers and states; computed once."""
    key = course_key(workload, kernel)
    course = _COURSES.get(key)
    if course is None:
        if len(_COURSES) >= _MOST_COURSES:
            _COURSES.clear()
        layers = workload.model.num_hidden_layers
        layout = layout_of(play(structure_of(workload, kernel)), layers > PLAYED_LAYERS)
        course = _COURSES[key] = Course(layout, symbol_sizes(workload), layers)
    return course
