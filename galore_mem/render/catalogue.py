"""The catalogue's lists, drawn for a terminal."""

from collections.abc import Sequence

from galore_mem.answers.catalogue import MethodRow
from galore_mem.render import words
from galore_mem.render.flow import flow
from galore_mem.render.terminal import Terminal, terminal
from galore_mem.render.text import Text
from profiles.gpus import Gpu
from profiles.models import Model

Cells = tuple[str, ...]
ROOM_FOR_NAMES = 20
"""Cells that the last column needs to stay in its place."""


def print_methods(rows: Sequence[MethodRow], screen: Terminal | None = None) -> None:
    """Methods, and what each stands for."""
    screen = screen or terminal()
    cells = [(row.name, row.parameterisation, row.summary) for row in rows]
    screen.show(_columns(("method", "trains", "what it is"), "<<<", cells, screen))


def print_models(rows: Sequence[Model], screen: Terminal | None = None) -> None:
    """Models that can be planned, then those that can only be traced."""
    screen = screen or terminal()
    lines: list[Text] = []
    for planned in (True, False):
        cells = [
            (row.name, words.parameters(row.parameters), row.family, ", ".join(row.aliases))
            for row in rows
            if row.planned is planned
        ]
        lines += _columns(("model", "parameters", "family", "also called"), "<><<", cells, screen)
        if planned:
            note = Text("Without a closed form, so that plan refuses them; galore-mem trace runs their real classes:")
            lines += [Text(), *flow(note, screen.width), Text()]
    screen.show(lines)


def print_gpus(rows: Sequence[Gpu], screen: Terminal | None = None) -> None:
    """Cards, and what torch can use of each."""
    screen = screen or terminal()
    cells = [
        (
            row.name,
            f"{words.gib(row.usable_bytes)}{'*' if row.usable_derived else ' '}",
            words.gib(row.total_bytes) if row.total_bytes else "",
            row.compute_capability,
            ", ".join(row.aliases),
        )
        for row in rows
    ]
    note = (
        "Sizes in GiB (1024^3 bytes). Usable is the smallest total that torch was seen to report; "
        "* was derived, for want of a reading. Sources: galore-mem gpus --json."
    )
    lines = _columns(("card", "usable ", "total", "arch", "also called"), "<>><<", cells, screen)
    screen.show([*lines, Text(), *flow(Text(note, style="dim"), screen.width)])


def _columns(head: Cells, sides: str, rows: Sequence[Cells], screen: Terminal) -> list[Text]:
    """Columns as wide as their widest cell, unless the screen is too narrow; the last one may take several lines.

    Where a name in the last column would be cut in two, that column stands below the others: names are to be copied.
    """
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head) - 1)]
    if sum(widths) + 2 * len(widths) > screen.width - 4:
        widths = [0] * len(widths)
    room = screen.width - sum(widths) - 2 * len(widths)
    below = room < max(ROOM_FOR_NAMES, *(len(name) for row in rows for name in row[-1].split()), 0)
    lines = []
    for number, row in enumerate((head, *rows)):
        text = Text(style="" if number else "dim")
        for column, (cell, width) in enumerate(zip(row, widths, strict=False)):
            bold = number > 0 and column == 0
            text.append(f"{cell:{sides[column]}{width}}", style="bold" if bold else "").append("  ")
        indent = text.cell_len
        if below:
            lines += flow(text, screen.width, 4)
            lines += flow(Text(f"    {row[-1]}", style="dim"), screen.width, 4) if row[-1] else []
        else:
            lines += flow(text.append(row[-1], style="dim"), screen.width, indent)
    return lines
