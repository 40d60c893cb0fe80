"""Bars: bytes as cells of a line, against a card's capacity."""

from collections.abc import Sequence
from dataclasses import dataclass

from estimators.footprint import Footprint, Moment
from galore_mem.render.palette import BOUND, CONTEXT, Part, shares
from galore_mem.render.text import Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How many bytes a line of cells stands for."""

    cells: int
    full_bytes: int
    """Bytes at the right end."""
    capacity_bytes: int | None
    """Where the card ends."""

    def cell(self, nbytes: int) -> int:
        """The cell border nearest to `nbytes`."""
        return (nbytes * self.cells * 2 + self.full_bytes) // (2 * self.full_bytes)

    @property
    def capacity_cell(self) -> int | None:
        """The cell that the capacity line takes: the first one beyond the card; None where that is off the line."""
        if self.capacity_bytes is None or self.capacity_bytes > self.full_bytes:
            return None
        return min(self.cell(self.capacity_bytes), self.cells - 1)


def scale_for(footprints: Sequence[Footprint], capacity_bytes: int | None, cells: int) -> Scale:
    """One scale for all: up to the largest bound, but at most 1.6 times the card, lest what fits shrink to nothing."""
    largest = max(footprint.upper_bytes for footprint in footprints)
    if capacity_bytes is None:
        return Scale(cells=cells, full_bytes=largest, capacity_bytes=None)
    full = max(capacity_bytes * 21 // 20, min(largest, capacity_bytes * 8 // 5))
    return Scale(cells=cells, full_bytes=full, capacity_bytes=capacity_bytes)


def parts_of(footprint: Footprint) -> list[tuple[Part, int]]:
    """What the process holds at its peak, and how far the bound is."""
    beyond = footprint.process_bytes - footprint.peak_live_bytes
    bound = footprint.upper_bytes - footprint.process_bytes
    return [*shares(footprint.peak.by_category), (CONTEXT, beyond), (BOUND, bound)]


def bar(footprint: Footprint, scale: Scale, *, unicode: bool) -> Text:
    """One footprint drawn to `scale`; what does not fit the line ends in an arrow."""
    return _drawn(parts_of(footprint), scale, unicode=unicode)


def moment_bar(moment: Moment, scale: Scale, *, unicode: bool) -> Text:
    """What is alive at one moment, drawn to `scale`."""
    return _drawn(shares(moment.by_category), scale, unicode=unicode)


def _drawn(parts: Sequence[tuple[Part, int]], scale: Scale, *, unicode: bool) -> Text:
    text, done, end = Text(), 0, 0
    for part, nbytes in parts:
        done += nbytes
        start, end = end, min(scale.cell(done), scale.cells)
        text.append((part.glyph if unicode else part.ascii) * (end - start), style=part.style)
    if done and not end:  # what rounds to no cell is there all the same
        largest, _ = max(parts, key=lambda pair: pair[1])
        text.append(largest.glyph if unicode else largest.ascii, style=largest.style)
        end = 1
    text.append(" " * (scale.cells - end))
    if done > scale.full_bytes:
        text = _put(text, scale.cells - 1, "▶" if unicode else ">", "bold")
    if scale.capacity_cell is not None:
        text = _put(text, scale.capacity_cell, "┃" if unicode else "|", "bold")
    return text


def _put(text: Text, cell: int, glyph: str, style: str) -> Text:
    return text[:cell].append(glyph, style=style).append_text(text[cell + 1 :])
