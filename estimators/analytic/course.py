"""The course of live bytes through a played step, evaluated for one batch: its peaks, and how each is composed."""

from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from estimators.analytic.cards import CardTraits
from estimators.analytic.layout import Layout, layout_of
from estimators.analytic.shadow.play import Played, middle, play, play_folded
from estimators.analytic.shadow.played import Region
from estimators.analytic.structure import (
    PLAYED_LAYERS,
    batch_traits,
    course_key,
    structure_of,
    symbol_sizes,
)
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
    """

    def __init__(self, layout: Layout, symbols: dict[str, int]) -> None:
        self.layout = layout
        self._symbols = symbols
        elements = layout.elements(symbols)
        self._sizes = [
            -(-elements[dims] * itemsize // ALIGNMENT_BYTES) * ALIGNMENT_BYTES * times
            for dims, itemsize, times in layout.sizes
        ]
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

    @cached_property
    def exact_sizes(self) -> list[int]:
        """Bytes asked for by each played kind."""
        return self.layout.bytes_of_kinds(self._symbols)

    @cached_property
    def sizes(self) -> list[int]:
        """Live bytes of each played kind, of all repetitions where it stands for one of each."""
        return [self._sizes[size] for size in self.layout.size_of]

    def _values(self) -> list[int]:
        """Live bytes before each event and after the last, as played; made anew, for courses are many."""
        table = [0, *self._sizes, *[-size for size in self._sizes[::-1]]]
        return list(accumulate(self.layout.pick(table), initial=0))

    def _repeated(self, values: list[int]) -> list[int]:
        stretches, shifts = self.layout.stretches, [0]
        for first, last, times in self.layout.blocks:
            growth = values[stretches[last].stop] - values[stretches[first].start]
            shifts.append(shifts[-1] + (times - 1) * growth)
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
        total, part = self.interval_bytes[interval], self.layout.slices[number]
        return Point(total, interval, values.index(total - self.shifts[passed], part.start, part.stop))

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
        stretches, current = self.layout.stretches, self.layout.stretches[here.stretch]
        for number, (first, last, times) in enumerate(self.layout.blocks, 1):
            if here.last if number == current.block else stretches[first].start < current.start:
                self._count(counts, events[stretches[first].start : stretches[last].stop], times - 1)
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
        card: what it runs on.
    """

    def __init__(self, workload: Workload, kernel: str, card: CardTraits | None = None) -> None:
        self._workload = workload
        self._kernel = kernel
        self._card = card
        self._known: dict[tuple[int, int, int], Course] = {}
        self._layouts: dict[tuple[Hashable, ...], Layout] = {}
        self._micro_batches = defaultdict[tuple[int, int], list[int]](list)

    def of(self, batch: Batch) -> Course:
        """The course in one batch."""
        key = (batch.micro_batch_size, batch.sequence_length, batch.gradient_accumulation_steps)
        course = self._known.get(key)
        if course is None:
            if len(self._known) >= _MOST_BATCHES:
                self._known.clear()
                self._micro_batches.clear()
            course = self._known[key] = self._made(in_batch(self._workload, batch))
            insort(self._micro_batches[key[1:]], batch.micro_batch_size)
        return course

    def micro_batches(self, batch: Batch) -> Sequence[int]:
        """Sizes of micro-batches in which the course is at hand, of as long sequences and as many a step; growing."""
        return self._micro_batches[batch.sequence_length, batch.gradient_accumulation_steps]

    def whole(self, batch: Batch) -> Course:
        """The course of a step that knows what each death ends, with every layer's own events where layers differ."""
        return Course(*self._whole(in_batch(self._workload, batch)))

    def whole_layout(self, batch: Batch) -> tuple[Layout, list[int]]:
        """That step cut, and the bytes that each of its kinds asks for, without its course."""
        layout, symbols = self._whole(in_batch(self._workload, batch))
        return layout, layout.bytes_of_kinds(symbols)

    def _whole(self, workload: Workload) -> tuple[Layout, dict[str, int]]:
        structure = structure_of(workload, self._kernel, self._card)
        layout = self._layout(workload, play(structure), middle(structure))
        return layout, symbol_sizes(workload, self._card)

    def _made(self, workload: Workload) -> Course:
        key = batch_traits(workload)
        layout = self._layouts.get(key)
        if layout is None:
            played, regions = play_folded(structure_of(workload, self._kernel, self._card))
            layout = self._layouts[key] = self._layout(workload, played, regions)
        return Course(layout, symbol_sizes(workload, self._card))

    def _layout(self, workload: Workload, played: Played, regions: tuple[Region, ...]) -> Layout:
        """A step cut; a lone middle layer stands for all between the first and the last."""
        if regions and regions[0].times == 1:
            times = max(workload.model.num_hidden_layers - PLAYED_LAYERS + 1, 1)
            regions = (regions[0]._replace(times=times),)
        return layout_of(played, regions)


_COURSES: dict[tuple[Hashable, ...], Courses] = {}
_MOST_COURSES = 64
_MOST_BATCHES = 256


def courses_of(workload: Workload, kernel: str, card: CardTraits | None = None) -> Courses:
    """The courses of a workload in any batch, shared by all runs whose forward and backward are the same."""
    key = course_key(workload, kernel, card)
    courses = _COURSES.get(key)
    if courses is None:
        if len(_COURSES) >= _MOST_COURSES:
            _COURSES.clear()
        courses = _COURSES[key] = Courses(workload, kernel, card)
    return courses


def course_of(workload: Workload, kernel: str, card: CardTraits | None = None) -> Course:
    """The course of a workload's forward and backward, without weights, buffers and states; computed once."""
    return courses_of(workload, kernel, card).of(workload.batch)


def whole_course_of(workload: Workload, kernel: str, card: CardTraits | None = None) -> Course:
    """The same from a step that has every layer's events where layers differ; a lone middle layer stands for others."""
    return courses_of(workload, kernel, card).whole(workload.batch)


def whole_layout_of(workload: Workload, kernel: str, card: CardTraits | None = None) -> tuple[Layout, list[int]]:
    """That step cut, and the bytes that each of its kinds asks for."""
    return courses_of(workload, kernel, card).whole_layout(workload.batch)
