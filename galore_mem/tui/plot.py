"""How far can I go: the marked rows' upper bounds along an axis, with the card's line across."""

from itertools import pairwise
from math import log
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType

from galore_mem.render import words
from galore_mem.render.flow import flow
from galore_mem.render.text import Text
from galore_mem.tui.canvas import Canvas
from galore_mem.tui.curves import Curve, Curves
from galore_mem.tui.drawing import PENDING
from galore_mem.tui.messages import Changed
from galore_mem.tui.page import Page
from galore_mem.tui.state import PlotAxis
from galore_mem.tui.tasks import Drawn

AXES: tuple[PlotAxis, ...] = ("sequence", "batch", "rank")
UNITS: dict[PlotAxis, str] = {"sequence": "tokens", "batch": "sequences in a micro-batch", "rank": "rank"}
ALONG: dict[PlotAxis, str] = {
    "sequence": "tokens in a sequence",
    "batch": "sequences in a micro-batch",
    "rank": "rank",
}
COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#8a8a8a")
"""Okabe and Ito's; a letter tells curves apart without them."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LABEL = 8
"""Cells of the figures at the left."""


class Plot(Page):
    """Curves of the marked rows, or of the one under the cursor."""

    HELP = """
The upper bound of each marked row (or of the row under the cursor) along sequence length, micro-batch size or rank,
on a logarithmic axis. The line across is what the selected card offers; a curve below it fits. A circle is where the
row stands now. Along rank, a dotted upright marks where GaLore's states take as much as 8-bit Adam's.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "axis", "axis", id="plot.axis", tooltip="Plot along the next of sequence, batch and rank"),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.axis: PlotAxis = "sequence"
        self._curves: Curves | None = None

    @on(Drawn)
    def _drawn(self, event: Drawn) -> None:
        self._curves = event.curves
        self.axis = event.curves.axis
        self.renew()

    def action_axis(self) -> None:
        """Go to the next axis."""
        self.post_message(Changed(axis=AXES[(AXES.index(self.axis) + 1) % len(AXES)]))

    def lines(self, width: int) -> list[Text]:
        """The plot and its legend."""
        found = self._curves
        if found is None:
            return [Text(PENDING)]
        title = Text.assemble(("How far can I go: ", "bold"), f"upper bound in GiB against {ALONG[found.axis]}")
        legend = [line for number, curve in enumerate(found.curves) for line in _legend(number, curve, found, width)]
        if found.left_out:
            names = ", ".join(found.left_out)
            legend += flow(Text(f"Not along this axis: {names}.", style="dim"), width, indent=2)
        rows = max(4, self.size.height - len(legend) - 4)
        if not found.curves and not found.left_out:
            return [*flow(title, width), Text(), Text("No row is under the cursor, and none is marked.")]
        if not any(curve.points for curve in found.curves):
            return [*flow(title, width), Text(), *legend]
        return [*flow(title, width), *_drawn(found, width, rows), *legend]


def _legend(number: int, curve: Curve, found: Curves, width: int) -> list[Text]:
    unit = UNITS[found.axis]
    last = curve.points[-1][0] if curve.points else 0
    limit = f"rank {curve.furthest:,}" if found.axis == "rank" else f"{curve.furthest:,} {_of(curve.furthest, unit)}"
    reached = "fits all along this axis" if curve.furthest == last else f"fits up to {limit}"
    text = Text.assemble(
        (f"{LETTERS[number % 26]} ", f"bold {COLOURS[number % len(COLOURS)]}"),
        (curve.name, "bold"),
        f": {reached if curve.furthest else 'fits nowhere on this axis'}",
        f"; now {curve.here:,}",
    )
    if curve.break_even:
        text.append(f"; breaks even with 8-bit Adam at rank {curve.break_even:,}")
    return flow(text, width, indent=2)


def _drawn(found: Curves, width: int, rows: int) -> list[Text]:
    usable = found.card.gpu.usable_bytes - found.card.other_use_bytes
    columns = max(8, width - LABEL - 3)
    canvas = Canvas(columns, rows)
    numbers = [number for curve in found.curves for number, _ in curve.points]
    low, high = min(numbers), max(numbers)
    largest = max(nbytes for curve in found.curves for _, nbytes in curve.points)
    full = max(usable * 11 // 10, min(largest * 21 // 20, usable * 8 // 5))

    def place(number: int, nbytes: int) -> tuple[int, int]:
        along = log(number / low) / log(high / low) if high > low else 0.0
        return round(along * (canvas.width - 1)), nbytes * (canvas.height - 1) // full

    for order, curve in enumerate(found.curves):
        _draw_curve(canvas, [place(*point) for point in curve.points], order)
    for order, curve in enumerate(found.curves):
        near = min(curve.points, key=lambda point: abs(point[0] - curve.here), default=None)
        if near is not None and low <= curve.here <= high:
            canvas.put(*place(*near), "o", f"bold {COLOURS[order % len(COLOURS)]}")
        if curve.break_even and low <= curve.break_even <= high:
            canvas.upright(place(curve.break_even, 0)[0], "┊", COLOURS[order % len(COLOURS)])
    canvas.across(place(low, usable)[1], "━", "bold")
    return [*_with_figures(canvas.lines(), full, usable, rows), *_ticks(found, low, high, columns)]


def _draw_curve(canvas: Canvas, points: list[tuple[int, int]], order: int) -> None:
    style = COLOURS[order % len(COLOURS)]
    for start, end in pairwise(points):
        if start[1] < canvas.height:
            canvas.line(start, (end[0], min(end[1], canvas.height)), style)
    inside = [point for point in points if point[1] < canvas.height]
    if inside:
        x, y = inside[-1 if len(inside) == len(points) else len(inside) * 9 // 10]
        canvas.put(max(0, x - 2 * order), y, LETTERS[order % 26], f"bold {style}")


def _with_figures(lines: list[Text], full: int, usable: int, rows: int) -> list[Text]:
    """Round figures at the left, and the card's own."""

    def row_of(nbytes: int) -> int:
        return rows - 1 - (nbytes * (rows * 4 - 1) // full) // 4

    step, digits = _step(full / words.GIB, max(2, rows // 3))
    marks = [round(step * number * words.GIB) for number in range(int(full / words.GIB / step) + 1)]
    figures = {row_of(mark): (words.gib(mark, digits), "dim") for mark in marks}
    figures[row_of(usable)] = (words.gib(usable, 1), "bold")
    out = []
    for row, line in enumerate(lines):
        figure, style = figures.get(row, ("", "dim"))
        label = Text(f"{figure:>{LABEL}} ", style=style)
        out.append(label.append("┤" if figure else "│", style="dim").append(line))
    return out


def _step(full: float, most: int) -> tuple[float, int]:
    """The least of 1, 2, 5, 10, ... (and tenths of them) that goes into `full` at most `most` times, and its digits."""
    power = -2
    while True:
        for first in (1, 2, 5):
            step = first * 10.0**power
            if full / step <= most:
                return step, max(0, -power)
        power += 1


def _ticks(found: Curves, low: int, high: int, columns: int) -> list[Text]:
    line = [" "] * (columns + 1)
    rule = ["─"] * columns
    marks = [low]
    while marks[-1] * 2 <= high:
        marks.append(marks[-1] * 2)
    cells = [round(log(mark / low) / log(high / low) * (columns - 1)) if high > low else 0 for mark in marks]
    longest = len(f"{marks[-1]:,}")
    apart = next((step for step in range(1, len(marks)) if cells[step] - cells[0] > longest), len(marks))
    for mark, cell in list(zip(marks, cells, strict=True))[::apart]:
        text = f"{mark:,}"
        start = max(0, min(cell - len(text) // 2, columns - len(text)))
        rule[min(cell, columns - 1)] = "┴"
        line[start : start + len(text)] = text
    return [
        Text(" " * (LABEL + 1) + "└" + "".join(rule), style="dim"),
        Text(" " * (LABEL + 2) + "".join(line).rstrip(), style="dim"),
    ]


def _of(number: int, unit: str) -> str:
    """A unit in the singular for one."""
    first, space, rest = unit.partition(" ")
    return f"{first.removesuffix('s')}{space}{rest}" if number == 1 else unit
