"""A played step between its marks: which moment each stretch is a candidate for, and whose gradient ends it."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

from estimators.analytic.shadow.play import Played
from estimators.analytic.shadow.played import Region
from estimators.analytic.shadow.tape import OUTSIDE
from estimators.analytic.walk import Pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Events between two marks: `events[start:stop]`."""

    start: int
    stop: int
    window: str
    """The moment that the largest value in it is a candidate for."""
    block: int
    """Number of the pass over layers that stand for several that it belongs to; 0 outside of them."""
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


class Block(NamedTuple):
    """A pass over layers that stand for several."""

    first: int
    """Its first stretch."""
    last: int
    times: int
    """How often it happens."""


class _Cutter:
    """Reads the marks of a step from first to last."""

    def __init__(self, played: Played, regions: Sequence[Region]) -> None:
        self.stretches: list[Stretch] = []
        self.times: list[int] = []
        """Of each block."""
        self._regions = regions
        self._region: Region | None = None
        self._layers = 1 + max(int(detail) for _, label, detail in played.marks if label == "backward of layer")
        self._last = max(detail for _, label, detail in played.marks if label == "micro-batch")
        self._window, self._start, self._micro_batch, self._piece = "forward_end", 0, "", ""

    def read(self, position: int, label: str, detail: str) -> None:
        """What a mark ends, and begins."""
        gradient = detail if label == "gradient" else ""
        if position > self._start or gradient:
            self.stretches.append(
                Stretch(
                    start=self._start,
                    stop=position,
                    window=self._window,
                    block=len(self.times) if self._region is not None else 0,
                    gradient=gradient,
                    part=_part(self._micro_batch, self._last),
                    piece=self._piece,
                )
            )
            self._start = position
        if label == "micro-batch":
            self._micro_batch = detail
        if label in ("piece", "backward", "backward of layer"):
            self._piece = detail if label == "piece" else ""
        self._window = _window(self._window, label, detail, self._layers)
        if label in ("forward of layer", "backward of layer"):
            self._enter(int(detail) if detail.isdigit() else OUTSIDE)

    def _enter(self, layer: int) -> None:
        if layer == OUTSIDE and self._region is not None:
            return  # what no layer has begun belongs to the pass that it interrupts
        region = next((region for region in self._regions if region.first <= layer <= region.last), None)
        if region is not None and region is not self._region:
            self.times.append(region.times)
        self._region = region


def cut(played: Played, regions: Sequence[Region]) -> tuple[list[Stretch], list[Block]]:
    """The stretches of a step, and its passes over layers that stand for several."""
    cutter = _Cutter(played, regions)
    product = (played.product, "product", "")
    for mark in sorted((*played.marks, product), key=itemgetter(0)):  # stable: marks first
        cutter.read(*mark)
    found: dict[int, tuple[int, int]] = {}
    for number, stretch in enumerate(cutter.stretches):
        if stretch.block:
            found[stretch.block] = (found.get(stretch.block, (number, number))[0], number)
    return cutter.stretches, [Block(*found[block], cutter.times[block - 1]) for block in sorted(found)]


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
