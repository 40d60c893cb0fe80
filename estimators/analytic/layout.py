"""How a played step is cut into intervals: which moment each is a candidate for, and whose gradient ends it.

Three layers are played; the middle one stands for any number. Within it live bytes move by the same amount each time
it is repeated, so the largest value at any of its points is reached in the first or in the last repetition: its
stretches appear as intervals twice.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import prod
from operator import itemgetter

from estimators.analytic.shadow.play import Played
from estimators.analytic.shadow.tape import MIDDLE, OUTSIDE, Dims
from estimators.analytic.structure import PLAYED_LAYERS
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
class Stretch:
    """Events between two marks: `events[start:stop]`."""

    start: int
    stop: int
    window: str
    """The moment that the largest value in it is a candidate for."""
    block: int
    """Number of the pass over the middle layer that it belongs to; 0 outside of them."""
    gradient: str
    """The parameter whose gradient is complete at its end; empty where none is."""
    part: Pass
    """Which of a step's backward passes it belongs to."""
    piece: str
    """The number of the piece of a chunked loss that it belongs to, among those played; empty outside of them."""

    @property
    def steps(self) -> bool:
        """Its gradient is the last one of its parameter before the step."""
        return bool(self.gradient) and self.part in ("only", "closing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A stretch in one repetition."""

    stretch: int
    last: bool
    """In the last repetition of a middle layer that stands for several."""
    opens_last: bool
    """The first interval of that repetition: all between it and the first are passed over."""


def _blocks(stretches: list[Stretch]) -> list[tuple[int, int]]:
    found: dict[int, tuple[int, int]] = {}
    for number, stretch in enumerate(stretches):
        if stretch.block:
            found[stretch.block] = (found.get(stretch.block, (number, number))[0], number)
    return [found[block] for block in sorted(found)]


def _passed(stretches: list[Stretch], intervals: list[Interval]) -> list[int]:
    """How many passes over the middle layer have been repeated in full, but for the last time, at each interval."""
    before = [0, *accumulate((stretch.block for stretch in stretches), max)]
    return [
        stretches[interval.stretch].block - (not interval.last)
        if stretches[interval.stretch].block
        else before[interval.stretch]
        for interval in intervals
    ]


def _growth(stretch: Stretch, interval: Interval) -> tuple[tuple[Pass, str] | None, bool, bool]:
    taken = (stretch.part, stretch.gradient) if stretch.gradient else None
    return taken, bool(stretch.block) and not interval.last, interval.opens_last


class Layout:
    """A played step cut into stretches and intervals, and its sizes ready for evaluation."""

    def __init__(self, played: Played, deep: bool) -> None:
        self.played = played
        self.stretches = _stretches(played)
        self.intervals = _intervals(self.stretches, deep)
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
        self.growth = [_growth(self.stretches[interval.stretch], interval) for interval in self.intervals]
        """By interval: the pass and the parameter whose gradient is complete at its end, if one is; whether all
        repetitions but the last do the same; whether it opens the last repetition."""
        self.pick = itemgetter(*played.events)
        """Takes what each event adds from a table by its code."""
        self.slices = [slice(min(stretch.start + 1, stretch.stop), stretch.stop + 1) for stretch in self.stretches]
        """The values that each stretch sees, after each of its events: what it begins with ends the one before."""
        self.blocks = _blocks(self.stretches)
        """First and last stretch of each pass over the middle layer."""
        self.passed = _passed(self.stretches, self.intervals)
        """Passes whose repetitions lie before the interval: all of them up to that number."""
        self.places = [(i.stretch, passed) for i, passed in zip(self.intervals, self.passed, strict=True)]
        self.update_places = [
            (self.stretches[stretch].stop, passed) for stretch, passed in (self.places[i] for i in self.updates)
        ]
        """Events that have happened where each such gradient is complete, and passes over layers before it."""
        self.dims: list[Dims] = list(dict.fromkeys(kind.size.dims for kind in played.kinds))
        number = {dims: index for index, dims in enumerate(self.dims)}
        self.kinds = [(number[kind.size.dims], kind.size.itemsize) for kind in played.kinds]
        """Index of the dimensions, and bytes per element."""
        self.everywhere = [index for index, kind in enumerate(played.kinds) if kind.in_every_middle_layer]
        """Kinds of which there is one for each middle layer."""

    def elements(self, symbols: dict[str, int]) -> list[int]:
        """Elements of each combination of dimensions."""
        return [prod([symbols[dim] for dim in dims]) for dims in self.dims]


@lru_cache(maxsize=512)
def layout_of(played: Played, deep: bool) -> Layout:
    """The layout of a played step; `deep` where the middle layer stands for more than one."""
    return Layout(played, deep)


def _stretches(played: Played) -> list[Stretch]:
    cuts: list[Stretch] = []
    window, block, blocks, start, micro_batch, piece = "forward_end", 0, 0, 0, "", ""
    layers = 1 + max(int(detail) for _, label, detail in played.marks if label == "backward of layer")
    last = max(detail for _, label, detail in played.marks if label == "micro-batch")
    product = (played.product, "product", "")
    for position, label, detail in sorted((*played.marks, product), key=itemgetter(0)):  # stable: marks first
        gradient = detail if label == "gradient" else ""
        if position > start or gradient:
            cuts.append(
                Stretch(
                    start=start,
                    stop=position,
                    window=window,
                    block=block,
                    gradient=gradient,
                    part=_part(micro_batch, last),
                    piece=piece,
                )
            )
            start = position
        if label == "micro-batch":
            micro_batch = detail
        if label in ("piece", "backward", "backward of layer"):
            piece = detail if label == "piece" else ""
        window = _window(window, label, detail, layers)
        if label in ("forward of layer", "backward of layer"):
            middle = detail == str(MIDDLE) and layers == PLAYED_LAYERS
            blocks += middle
            block = blocks if middle else 0
    return cuts


def _part(micro_batch: str, last: str) -> Pass:
    if last == "0":
        return "only"
    if micro_batch == last:
        return "closing"
    return "middle" if micro_batch not in ("", "0") else "opening"


def _window(window: str, label: str, detail: str, layers: int) -> str:
    """The moment that counts after a mark."""
    if label == "backward of layer":
        early = detail in (str(OUTSIDE), str(layers - 1)) and window == "backward_start" and layers > 1
        return "backward_start" if early else "backward_end"
    starts = {"micro-batch": "forward_end", "loss": "loss", "backward": "backward_start"}
    return starts.get(label, window)


def _intervals(stretches: list[Stretch], deep: bool) -> list[Interval]:
    found: list[Interval] = []
    index = 0
    while index < len(stretches):
        block, stop = stretches[index].block, index + 1
        while block and stretches[stop].block == block:
            stop += 1
        found += [Interval(stretch=number, last=False, opens_last=False) for number in range(index, stop)]
        if block and deep:
            found += [Interval(stretch=number, last=True, opens_last=number == index) for number in range(index, stop)]
        index = stop
    return found
