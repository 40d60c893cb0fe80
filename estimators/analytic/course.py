"""The course of live bytes through a played step, evaluated for one batch: its peaks, and how each is composed."""

from collections import Counter
from collections.abc import Hashable
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from estimators.analytic.layout import Layout, layout_of
from estimators.analytic.shadow.play import play
from estimators.analytic.structure import PLAYED_LAYERS, course_key, structure_of, symbol_sizes
from estimators.analytic.tensors import ALIGNMENT_BYTES
from estimators.workload import Batch, Workload, in_batch

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
        deep: the middle one stands for several.
    """

    def __init__(self, layout: Layout, symbols: dict[str, int], layers: int, deep: bool) -> None:
        self.layout = layout
        self.repetitions = layers - PLAYED_LAYERS + 1 if deep else 1
        elements, repetitions = layout.elements(symbols), self.repetitions
        self.sizes = [
            -(-elements[dims] * itemsize // ALIGNMENT_BYTES) * ALIGNMENT_BYTES for dims, itemsize in layout.kinds
        ]
        for kind in layout.everywhere:
            self.sizes[kind] *= repetitions
        values = self._values()
        shifts = self.shifts = self._repeated(values)
        """What repetitions that are not played add, by the number of passes they belong to."""
        maxima = [max(values[part]) for part in layout.slices]
        self.interval_bytes = [maxima[stretch] + shifts[passed] for stretch, passed in layout.places]
        """Largest live bytes in each interval."""
        self.update_bytes = [values[stop] + shifts[passed] for stop, passed in layout.update_places]
        """Live bytes where each gradient of each pass is complete."""
        self.peak_bytes = max(self.interval_bytes)
        self.end_bytes = values[-1] + shifts[-1]

    def _values(self) -> list[int]:
        """Live bytes before each event and after the last, as played; made anew, for courses are many."""
        table = [0, *self.sizes, *[-size for size in self.sizes[::-1]]]
        return list(accumulate(self.layout.pick(table), initial=0))

    def _repeated(self, values: list[int]) -> list[int]:
        stretches, shifts = self.layout.stretches, [0]
        for first, last in self.layout.blocks:
            growth = values[stretches[last].stop] - values[stretches[first].start]
            shifts.append(shifts[-1] + (self.repetitions - 1) * growth)
        return shifts

    @cached_property
    def peaks(self) -> dict[str, Point]:
        """The largest point of each moment."""
        largest, values = self.interval_bytes.__getitem__, self._values()
        return {
            name: self._point(max(intervals, key=largest), values) for name, intervals in self.layout.windows.items()
        }

    def point(self, interval: int) -> Point:
        """The largest point of an interval."""
        return self._point(interval, self._values())

    def _point(self, interval: int, values: list[int]) -> Point:
        number, passed = self.layout.places[interval]
        total = self.interval_bytes[interval]
        inside = values[self.layout.slices[number]]
        event = self.layout.slices[number].start + inside.index(total - self.shifts[passed])
        return Point(total, interval, event)

    def update(self, number: int) -> Point:
        """Where the gradient of an update is complete."""
        interval = self.layout.updates[number]
        stretch = self.layout.stretches[self.layout.intervals[interval].stretch]
        return Point(self.update_bytes[number], interval, stretch.stop)

    @property
    def end(self) -> Point:
        """After backward: gradients, inputs, and what else outlives it."""
        interval = len(self.layout.intervals) - 1
        return Point(self.end_bytes, interval, len(self.layout.played.events))

    def alive(self, point: Point) -> dict[int, int]:
        """How many of each played kind live at a point."""
        events, counts = self.layout.played.events, Counter[int]()
        here = self.layout.intervals[point.interval]
        self._count(counts, events[: point.event], 1)
        more = self.repetitions - 1
        current = self.layout.stretches[here.stretch]
        for stretch in self.layout.stretches:
            passed = stretch.block and (stretch.start < current.start or stretch.block == current.block)
            if passed and more and (stretch.block != current.block or here.last):
                self._count(counts, events[stretch.start : stretch.stop], more)
        return {code - 1: count for code, count in counts.items() if count}

    def categories(self, point: Point) -> Categories:
        """Live bytes by category at a point; they sum up to its total."""
        out: Categories = {}
        for kind, count in self.alive(point).items():
            category = self.layout.played.kinds[kind].category
            out[category] = out.get(category, 0) + count * self.sizes[kind]
        return {category: nbytes for category, nbytes in out.items() if nbytes}

    @staticmethod
    def _count(counts: Counter[int], events: tuple[int, ...], times: int) -> None:
        for code, count in Counter(events).items():
            counts[abs(code)] += count * times if code > 0 else -count * times


class Courses:
    """Forward and backward of one configuration in any batch, each batch's course computed once.

    Args:
        workload: the run, whose own batch does not matter.
        kernel: the attention kernel that runs.
    """

    def __init__(self, workload: Workload, kernel: str) -> None:
        self._workload = workload
        self._kernel = kernel
        self._known: dict[tuple[int, int, int], Course] = {}

    def of(self, batch: Batch) -> Course:
        """The course in one batch."""
        key = (batch.micro_batch_size, batch.sequence_length, batch.gradient_accumulation_steps)
        course = self._known.get(key)
        if course is None:
            if len(self._known) >= _MOST_BATCHES:
                self._known.clear()
            course = self._known[key] = self._made(in_batch(self._workload, batch))
        return course

    def _made(self, workload: Workload) -> Course:
        structure, layers = structure_of(workload, self._kernel), workload.model.num_hidden_layers
        deep = layers > structure.layers
        return Course(layout_of(play(structure), deep), symbol_sizes(workload), layers, deep)


_COURSES: dict[tuple[Hashable, ...], Courses] = {}
_MOST_COURSES = 64
_MOST_BATCHES = 256


def courses_of(workload: Workload, kernel: str) -> Courses:
    """The courses of a workload in any batch, shared by all runs whose forward and backward are the same."""
    key = course_key(workload, kernel)
    courses = _COURSES.get(key)
    if courses is None:
        if len(_COURSES) >= _MOST_COURSES:
            _COURSES.clear()
        courses = _COURSES[key] = Courses(workload, kernel)
    return courses


def course_of(workload: Workload, kernel: str) -> Course:
    """The course of a workload's forward and backward, without weights, buffers and states; computed once."""
    return courses_of(workload, kernel).of(workload.batch)
