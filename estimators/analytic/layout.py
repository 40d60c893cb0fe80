"""How a played step is cut into intervals, and what of it an evaluation in a batch needs.

Some played layers stand for any number of themselves: the middle one of three, or a period of them. Within them live
bytes move by the same amount each time they are repeated, so the largest value at any of their points is reached in the
first or in the last repetition: their stretches appear as intervals twice.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import prod
from operator import itemgetter

from estimators.analytic.shadow.play import Played
from estimators.analytic.shadow.played import Region
from estimators.analytic.stretches import Block, Stretch, cut
from estimators.analytic.walk import Pass
from estimators.footprint import Phase

PHASES: dict[str, Phase] = {
    "forward_end": "forward",
    "loss": "loss",
    "backward_start": "backward",
    "backward_end": "backward",
}
"""Moments of forward and backward, with their phases.

`backward_start` reaches to the end of the last layer's backward, `backward_end` is the rest.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A stretch in one repetition."""

    stretch: int
    last: bool
    """In the last repetition of layers that stand for several."""
    passed_over: int | None = None
    """Repetitions between it and the interval before, where it opens a last one."""


Taking = tuple[tuple[Pass, str] | None, bool, int | None]


class Layout:
    """A played step cut into stretches and intervals, and its sizes ready for evaluation."""

    def __init__(self, played: Played, regions: tuple[Region, ...]) -> None:
        self.played = played
        self.stretches, self.blocks = cut(played, regions)
        self.repetitions = self.blocks[0].times if self.blocks else 1
        """How many the middle one of three layers stands for."""
        self.intervals = _intervals(self.stretches, self.blocks)
        self.windows: dict[str, list[int]] = {name: [] for name in PHASES}
        """Intervals by moment."""
        for index, interval in enumerate(self.intervals):
            self.windows[self.stretches[interval.stretch].window].append(index)
        starts = [self.stretches[interval.stretch].start for interval in self.intervals]
        self.product = next((i for i, start in enumerate(starts) if start >= played.product), len(starts))
        """The first interval in which backward's thread has run a matrix product."""
        self.updates = [i for i, interval in enumerate(self.intervals) if self.stretches[interval.stretch].gradient]
        """Intervals that end with a gradient of one pass complete: where a per-layer update takes it."""
        self.update_names = tuple(self.stretches[self.intervals[i].stretch].gradient for i in self.updates)
        self.update_parts = tuple(self.stretches[self.intervals[i].stretch].part for i in self.updates)
        self.growth = [self._taking(interval) for interval in self.intervals]
        """By interval: the pass and the parameter whose gradient is complete at its end, if one is; whether all
        repetitions but the last do the same; how many are passed over before it, where it opens the last one."""
        self.passed = _passed(self.stretches, self.intervals)
        """Passes whose repetitions lie before the interval: all of them up to that number."""
        self.places = [(i.stretch, passed) for i, passed in zip(self.intervals, self.passed, strict=True)]
        self.slices = [slice(min(stretch.start + 1, stretch.stop), stretch.stop + 1) for stretch in self.stretches]
        """The values that each stretch sees, after each of its events: what it begins with ends the one before."""
        ends = [self.places[index] for index in self.updates]
        self.update_places = [(self.stretches[stretch].stop, passed) for stretch, passed in ends]
        """Events that have happened where each such gradient is complete, and passes over layers before it."""
        self.dims = list(dict.fromkeys(kind.size.dims for kind in played.kinds))
        number = {dims: index for index, dims in enumerate(self.dims)}
        kinds = [
            (number[kind.size.dims], kind.size.itemsize, self.repetitions if kind.in_every_middle_layer else 1)
            for kind in played.kinds
        ]
        self.sizes = list(dict.fromkeys(kinds))
        """Index of the dimensions, bytes per element, and how many there are: one, or one for each middle layer."""
        place = {size: index for index, size in enumerate(self.sizes)}
        self.size_of = [place[kind] for kind in kinds]
        """The size of each kind."""
        codes = [0, *(size + 1 for size in self.size_of), *(-size - 1 for size in self.size_of[::-1])]
        self.pick = itemgetter(*itemgetter(*played.events)(codes))
        """Takes what each event adds from a table of nothing, all sizes, and in reverse what they are when they end."""

    def _taking(self, interval: Interval) -> Taking:
        stretch = self.stretches[interval.stretch]
        taken = (stretch.part, stretch.gradient) if stretch.gradient else None
        return taken, bool(stretch.block) and not interval.last, interval.passed_over

    def elements(self, symbols: dict[str, int]) -> list[int]:
        """Elements of each combination of dimensions."""
        return [prod([symbols[dim] for dim in dims]) for dims in self.dims]

    def bytes_of_kinds(self, symbols: dict[str, int]) -> list[int]:
        """Bytes that one storage of each played kind asks for."""
        elements = self.elements(symbols)
        sizes = [elements[dims] * itemsize for dims, itemsize, _ in self.sizes]
        return [sizes[size] for size in self.size_of]


@lru_cache(maxsize=512)
def layout_of(played: Played, regions: tuple[Region, ...]) -> Layout:
    """The layout of a played step."""
    return Layout(played, regions)


def _intervals(stretches: list[Stretch], blocks: list[Block]) -> list[Interval]:
    found: list[Interval] = []
    index = 0
    while index < len(stretches):
        block = stretches[index].block
        stop = blocks[block - 1].last + 1 if block else index + 1
        found += [Interval(stretch=number, last=False) for number in range(index, stop)]
        again = blocks[block - 1].times - 2 if block else -1
        if again >= 0:
            found.append(Interval(stretch=index, last=True, passed_over=again))
            found += [Interval(stretch=number, last=True) for number in range(index + 1, stop)]
        index = stop
    return found


def _passed(stretches: list[Stretch], intervals: list[Interval]) -> list[int]:
    """How many passes over such layers have been repeated in full, but for the last time, at each interval."""
    before = [0, *accumulate((stretch.block for stretch in stretches), max)]
    return [
        stretches[interval.stretch].block - (not interval.last)
        if stretches[interval.stretch].block
        else before[interval.stretch]
        for interval in intervals
    ]
