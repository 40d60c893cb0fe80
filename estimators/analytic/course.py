"""The course of live bytes through a played step, evaluated for one batch: its peaks, and how each is composed.

Three layers are played; the middle one stands for any number. Within it live bytes move by the same amount each time
it is repeated, so the largest value at any of its points is reached in the first or in the last repetition.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import prod

from estimators.analytic.shadow.play import Played, play
from estimators.analytic.structure import PLAYED_LAYERS, structure_of, symbol_sizes
from estimators.analytic.tensors import rounded
from estimators.footprint import Phase
from estimators.workload import Workload

Categories = dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Events between two borders."""

    start: int
    stop: int
    window: str
    """The moment that the largest value in it is a candidate for."""
    repeats: bool
    """It belongs to the middle layer."""
    gradient: str = ""
    """The parameter whose gradient is complete at its end; empty where none is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A place in the course."""

    total_bytes: int
    stretch: int
    event: int
    """Events of the stretch that have happened."""
    repetition: int


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
    window, repeats, start = "forward_end", False, 0
    layers = 1 + max((int(detail) for _, label, detail in played.marks if label == "backward of layer"), default=-1)
    for position, label, detail in played.marks:
        gradient = detail if label == "gradient" else ""
        if position > start or gradient:
            cuts.append(
                Stretch(start=start, stop=position, window=window, repeats=repeats, gradient=gradient)
            )
            start = position
        match label:
            case "micro-batch":
                window = "forward_end"
            case "loss":
                window = "loss"
            case "backward":
                window = "backward_start"
            case "forward of layer":
                repeats = detail == "1" and layers == PLAYED_LAYERS
            case "backward of layer":
                repeats = detail == "1" and layers == PLAYED_LAYERS
                window = window if detail in ("-1", str(layers - 1)) and window != "backward_end" else "backward_end"
            case _:
                pass
    return tuple(cuts)


class Course:
    """Live bytes of everything that forward and backward make, from an empty start."""

    def __init__(self, played: Played, symbols: Mapping[str, int], layers: int) -> None:
        self.played = played
        self.stretches = stretches_of(played)
        self.repetitions = layers - PLAYED_LAYERS + 1 if layers > PLAYED_LAYERS else 1
        self.sizes = [rounded(prod([symbols[dim] for dim in kind.size.dims]) * kind.size.itemsize) for kind in played.kinds]
        self.peaks: dict[str, Point] = {}
        """The largest point of each moment."""
        self.gradients: list[tuple[str, Point]] = []
        """Where each parameter's gradient is complete; parameters of the middle layers twice, first and last."""
        self.intervals: list[tuple[str, Point, str, int]] = []
        """Moment, largest point, parameter whose gradient ends it, and repetitions before the next."""
        self._run()

    def _run(self) -> None:
        table = [0, *self.sizes, *(-size for size in reversed(self.sizes))]
        events = self.played.events
        offset, index, stretches = 0, 0, self.stretches
        while index < len(stretches):
            if not stretches[index].repeats:
                offset = self._walk(index, 0, offset, table, events)
                index += 1
                continue
            stop = index
            while stop < len(stretches) and stretches[stop].repeats:
                stop += 1
            start_offset = offset
            for number in range(index, stop):
                offset = self._walk(number, 0, offset, table, events)
            if self.repetitions > 1:
                offset += (self.repetitions - 2) * (offset - start_offset)
                for number in range(index, stop):
                    offset = self._walk(number, self.repetitions - 1, offset, table, events)
            index = stop
        self.end_bytes = offset

    def _walk(self, number: int, repetition: int, offset: int, table: list[int], events: tuple[int, ...]) -> int:
        stretch = self.stretches[number]
        values = list(accumulate([table[code] for code in events[stretch.start : stretch.stop]], initial=offset))
        largest = max(values)
        best = self.peaks.get(stretch.window)
        point = Point(total_bytes=largest, stretch=number, event=values.index(largest), repetition=repetition)
        if best is None or largest > best.total_bytes:
            self.peaks[stretch.window] = point
        self.intervals.append((stretch.window, point, stretch.gradient, repetition))
        if stretch.gradient:
            end = Point(
                total_bytes=values[-1], stretch=number, event=stretch.stop - stretch.start, repetition=repetition
            )
            self.gradients.append((stretch.gradient, end))
        return values[-1]

    def categories(self, point: Point) -> Categories:
        """Live bytes by category at a point; they sum up to its total."""
        counts: Counter[int] = Counter()
        events = self.played.events
        for number, stretch in enumerate(self.stretches[: point.stretch]):
            self._count(counts, events[stretch.start : stretch.stop], self._times(number, point))
        stretch = self.stretches[point.stretch]
        if stretch.repeats and point.repetition:
            self._count(counts, events[stretch.start : stretch.stop], point.repetition)
            for number in range(point.stretch + 1, len(self.stretches)):
                later = self.stretches[number]
                if not later.repeats or not self._same_block(point.stretch, number):
                    break
                self._count(counts, events[later.start : later.stop], point.repetition)
        self._count(counts, events[stretch.start : stretch.start + point.event], 1)
        return self._by_category(counts)

    def _times(self, number: int, point: Point) -> int:
        """How often a stretch before the point has happened."""
        if not self.stretches[number].repeats:
            return 1
        return point.repetition + 1 if self._same_block(number, point.stretch) else self.repetitions

    def _same_block(self, first: int, second: int) -> bool:
        return all(stretch.repeats for stretch in self.stretches[first : second + 1])

    @staticmethod
    def _count(counts: Counter[int], events: tuple[int, ...], times: int) -> None:
        for code in events:
            counts[abs(code)] += times if code > 0 else -times

    def _by_category(self, counts: Counter[int]) -> Categories:
        out: Categories = {}
        for code, count in counts.items():
            if count:
                category = self.played.kinds[code - 1].category
                out[category] = out.get(category, 0) + count * self.sizes[code - 1]
        return {category: nbytes for category, nbytes in out.items() if nbytes}


@lru_cache(maxsize=8192)
def _course(played: Played, symbols: tuple[tuple[str, int], ...], layers: int) -> Course:
    return Course(played, dict(symbols), layers)


def course_of(workload: Workload, kernel: str) -> Course:
    """The course of a workload's forward and backward, without weights, buffers and states."""
    played = play(structure_of(workload, kernel))
    return _course(played, tuple(symbol_sizes(workload).items()), workload.model.num_hidden_layers)
