"""The course of live bytes through a played step, evaluated for one batch: its peaks, and how each is composed.

Three layers are played; the middle one stands for any number. Within it live bytes move by the same amount each time
it is repeated, so the largest value at any of its points is reached in the first or in the last repetition.
"""

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import prod
from typing import NamedTuple

from estimators.analytic.shadow.play import Played, play
from estimators.analytic.shadow.tape import MIDDLE, OUTSIDE
from estimators.analytic.structure import PLAYED_LAYERS, course_key, structure_of, symbol_sizes
from estimators.analytic.tensors import rounded
from estimators.footprint import Phase
from estimators.workload import Workload

Categories = dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Events between two borders."""

    events: tuple[int, ...]
    window: str
    """The moment that the largest value in it is a candidate for."""
    repeats: bool
    """It belongs to the middle layer."""
    gradient: str
    """The parameter whose gradient is complete at its end; empty where none is."""
    steps: bool
    """That gradient belongs to the last micro-batch."""


class Point(NamedTuple):
    """A place in the course."""

    total_bytes: int
    stretch: int
    event: int
    """Events of the stretch that have happened."""
    repetition: int


class Interval(NamedTuple):
    """A stretch as it is walked: once, or for the middle layer in its first and its last repetition."""

    window: str
    largest: Point
    end: Point
    gradient: str
    """The parameter whose gradient is complete at its end; empty where none is."""
    steps: bool
    """That gradient is the iteration's last: the micro-batch is the last one."""
    repeats: bool
    repetition: int
    skipped: int
    """Repetitions of the middle layer's block that are passed over just before."""


PHASES: dict[str, Phase] = {
    "forward_end": "forward",
    "loss": "loss",
    "backward_start": "backward",
    "backward_end": "backward",
}
"""Moments of forward and backward, with their phases."""


@lru_cache(maxsize=256)
def stretches_of(played: Played) -> tuple[Stretch, ...]:
    """Cut a played step at its marks."""
    cuts: list[Stretch] = []
    window, middle, start, micro_batch = "forward_end", False, 0, ""
    layers = 1 + max(int(detail) for _, label, detail in played.marks if label == "backward of layer")
    last = max(detail for _, label, detail in played.marks if label == "micro-batch")
    for position, label, detail in played.marks:
        gradient = detail if label == "gradient" else ""
        if position > start or gradient:
            cuts.append(
                Stretch(
                    events=played.events[start:position],
                    window=window,
                    repeats=middle and layers == PLAYED_LAYERS,
                    gradient=gradient,
                    steps=bool(gradient) and micro_batch == last,
                )
            )
            start = position
        if label == "micro-batch":
            micro_batch = detail
        window = _window(window, label, detail, layers)
        if label in ("forward of layer", "backward of layer"):
            middle = detail == str(MIDDLE)
    return tuple(cuts)


def _window(window: str, label: str, detail: str, layers: int) -> str:
    """The moment that counts after a mark."""
    if label == "backward of layer":
        early = detail in (str(OUTSIDE), str(layers - 1)) and window == "backward_start" and layers > 1
        return "backward_start" if early else "backward_end"
    starts = {"micro-batch": "forward_end", "loss": "loss", "backward": "backward_start"}
    return starts.get(label, window)


class Course:
    """Live bytes of everything that forward and backward make, from an empty start."""

    def __init__(self, played: Played, symbols: Mapping[str, int], layers: int) -> None:
        self.played = played
        self.stretches = stretches_of(played)
        self.repetitions = layers - PLAYED_LAYERS + 1 if layers > PLAYED_LAYERS else 1
        self.sizes = [
            rounded(prod([symbols[dim] for dim in kind.size.dims]) * kind.size.itemsize)
            * (self.repetitions if kind.in_every_middle_layer else 1)
            for kind in played.kinds
        ]
        self.peaks: dict[str, Point] = {}
        """The largest point of each moment."""
        self.intervals: list[Interval] = []
        self._run()
        self.updates = [interval for interval in self.intervals if interval.steps]
        """Intervals that end with a gradient that steps."""
        self.update_names = tuple(interval.gradient for interval in self.updates)
        self.update_bytes = [interval.end.total_bytes for interval in self.updates]

    @property
    def end(self) -> Point:
        """After backward: gradients, inputs, and what else outlives it."""
        return self.intervals[-1].end

    def _run(self) -> None:
        table = [0, *self.sizes, *(-size for size in reversed(self.sizes))]
        offset, index, stretches = 0, 0, self.stretches
        while index < len(stretches):
            stop = index + 1
            if stretches[index].repeats:
                while stretches[stop].repeats:
                    stop += 1
            before = offset
            for number in range(index, stop):
                offset = self._walk(number, 0, offset, table)
            if stretches[index].repeats and self.repetitions > 1:
                skipped = self.repetitions - 2
                offset += skipped * (offset - before)
                for number in range(index, stop):
                    offset = self._walk(number, skipped + 1, offset, table, skipped if number == index else 0)
            index = stop

    def _walk(self, number: int, repetition: int, offset: int, table: list[int], skipped: int = 0) -> int:
        stretch = self.stretches[number]
        values = list(accumulate(map(table.__getitem__, stretch.events), initial=offset))
        largest = max(values)
        peak = Point(largest, number, values.index(largest), repetition)
        end = Point(values[-1], number, len(values) - 1, repetition)
        best = self.peaks.get(stretch.window)
        if best is None or largest > best.total_bytes:
            self.peaks[stretch.window] = peak
        self.intervals.append(
            Interval(stretch.window, peak, end, stretch.gradient, stretch.steps, stretch.repeats, repetition, skipped)
        )
        return values[-1]

    def categories(self, point: Point) -> Categories:
        """Live bytes by category at a point; they sum up to its total."""
        counts: Counter[int] = Counter()
        for number, stretch in enumerate(self.stretches):
            self._count(counts, stretch.events, self._times(number, point))
        self._count(counts, self.stretches[point.stretch].events[: point.event], 1)
        return self._by_category(counts)

    def _times(self, number: int, point: Point) -> int:
        """How often a stretch has happened as a whole before the point."""
        if self._same_block(number, point.stretch):
            return point.repetition + (number < point.stretch)
        if number >= point.stretch:
            return 0
        return self.repetitions if self.stretches[number].repeats else 1

    def _same_block(self, first: int, second: int) -> bool:
        """Whether two stretches belong to one pass over the middle layer."""
        low, high = sorted((first, second))
        return all(stretch.repeats for stretch in self.stretches[low : high + 1])

    @staticmethod
    def _count(counts: Counter[int], events: tuple[int, ...], times: int) -> None:
        if not times:
            return
        for code in events:
            counts[abs(code)] += times if code > 0 else -times

    def _by_category(self, counts: Counter[int]) -> Categories:
        out: Categories = {}
        for code, count in counts.items():
            if count:
                category = self.played.kinds[code - 1].category
                out[category] = out.get(category, 0) + count * self.sizes[code - 1]
        return {category: nbytes for category, nbytes in out.items() if nbytes}


_COURSES: dict[tuple[Hashable, ...], Course] = {}
_MOST_COURSES = 16384


def course_of(workload: Workload, kernel: str) -> Course:
    """The course of a workload's forward and backward, without weights, buffers and states; computed once."""
    key = course_key(workload, kernel)
    course = _COURSES.get(key)
    if course is None:
        if len(_COURSES) >= _MOST_COURSES:
            _COURSES.clear()
        played = play(structure_of(workload, kernel))
        course = _COURSES[key] = Course(played, symbol_sizes(workload), workload.model.num_hidden_layers)
    return course
