"""Two or more answers side by side, category by category, each with its difference to the first."""

from collections.abc import Callable, Sequence

from galore_mem.render import words
from galore_mem.render.flow import flow
from galore_mem.render.palette import PARTS
from galore_mem.render.text import Text
from galore_mem.tui.beside import Beside
from galore_mem.tui.board import NamedCard
from galore_mem.tui.drawing import BADGES, padded
from galore_mem.tui.page import Page

LABEL = 18
OTHERS = 18
FIRST = 17
"""Cells of the first column, and of one with differences: three columns go into 80."""
TOTALS: tuple[tuple[str, Callable[[Beside], int | None]], ...] = (
    ("live tensors", lambda column: column.live_bytes),
    ("allocated", lambda column: column.allocated_bytes),
    ("reserved", lambda column: column.reserved_bytes),
    ("process", lambda column: column.process_bytes),
    ("upper bound", lambda column: column.upper_bytes),
)


class Compare(Page):
    """The marked rows, what was traced of them, and what was opened."""

    HELP = """
The rows marked with space side by side: bytes alive at the peak by category, then the totals, in GiB. Every column
after the first has its difference to the first, which is the baseline where one is pinned. What was traced of a row
stands behind it, and so does every file opened with o: a measured run, a Tape, or a snapshot of torch.
"""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._columns: tuple[Beside, ...] = ()
        self._card: NamedCard | None = None

    def show(self, columns: Sequence[Beside], card: NamedCard) -> None:
        """Show other columns."""
        self._columns, self._card = tuple(columns), card
        self.renew()

    def lines(self, width: int) -> list[Text]:
        """What to show in `width` cells; wider where there are many columns."""
        if len(self._columns) < 2 or self._card is None:
            hint = Text.assemble(
                ("Nothing to compare yet. ", "bold"),
                "Mark two or more rows with space in the table, or trace one with t, or open a file with o.",
            )
            return flow(hint, width)
        lines = [*self._heads(), *self._verdicts(self._card), self._rule()]
        for part in PARTS:
            values = [sum(column.by_category.get(name, 0) for name in part.categories) for column in self._columns]
            if any(values):
                known = [
                    value if column.by_category else None for value, column in zip(values, self._columns, strict=True)
                ]
                label = Text.assemble((part.glyph, part.style), f" {part.name}")
                lines.append(_figures(label, known))
        lines.append(self._rule())
        for name, value in TOTALS:
            label = Text(name, style="bold" if name == "process" else "")
            lines.append(_figures(label, [value(column) for column in self._columns]))
        return [*lines, *self._moments()]

    def _heads(self) -> list[Text]:
        """Titles, broken at blanks into as many lines as the longest needs."""
        wrapped = [flow(Text(column.title, style="bold"), FIRST) for column in self._columns]
        lines = self._row("", wrapped)
        sources = Text(f"{'GiB at the peak':<{LABEL}}", style="dim")
        for number, column in enumerate(self._columns):
            sources.append(
                f"  {column.source:<10}{'change':>8}" if number else f"  {column.source:<{FIRST}}", style="dim"
            )
        return [*lines, sources]

    def _rule(self) -> Text:
        return Text("─" * (LABEL + FIRST + 2 + (OTHERS + 2) * (len(self._columns) - 1)), style="dim")

    def _verdicts(self, card: NamedCard) -> list[Text]:
        usable = card.card.gpu.usable_bytes - card.card.other_use_bytes
        line = Text(f"{_short(f'on {card.title}'):<{LABEL}}")
        room = Text(f"{'headroom':<{LABEL}}")
        for number, column in enumerate(self._columns):
            cells = OTHERS if number else FIRST
            central = column.process_bytes or column.reserved_bytes
            upper = column.upper_bytes or central
            if central is None or upper is None:
                line.append("  ").append("-".ljust(cells))
                room.append("  ").append("-".ljust(cells))
                continue
            verdict = "fits" if upper <= usable else "tight" if central <= usable else "does-not-fit"
            word, style = BADGES[verdict]  # type: ignore[index]
            line.append("  ").append(word, style=style).append(" " * (cells - len(word)))
            room.append(f"  {words.signed_gib(usable - upper):>8}".ljust(cells + 2))
        return [line, room]

    def _moments(self) -> list[Text]:
        cells = [flow(Text(words.moment(column.moment) or "-", style="dim"), FIRST) for column in self._columns]
        return self._row("peak at", cells)

    def _row(self, label: str, cells: Sequence[list[Text]]) -> list[Text]:
        """Cells of several lines, side by side."""
        lines = []
        for place in range(max(map(len, cells))):
            line = Text(f"{'' if place else label:<{LABEL}}", style="dim")
            for number, cell in enumerate(cells):
                text = cell[place] if place < len(cell) else Text()
                line.append("  ").append(padded(text, OTHERS if number else FIRST))
            lines.append(line)
        return lines


def _figures(label: Text, values: Sequence[int | None]) -> Text:
    """A line of figures; all but the first with their difference to it."""
    line = padded(label, LABEL)
    for number, value in enumerate(values):
        cells = OTHERS if number else FIRST
        text = Text(f"{words.gib(value) if value is not None else '-':>8}")
        if number and value is not None and values[0] is not None:
            difference = value - values[0]
            text.append(f"{words.signed_gib(difference) if difference else '=':>10}", style="dim")
        line.append("  ").append(padded(text, cells))
    return line


def _short(text: str) -> str:
    return text if len(text) < LABEL else f"{text[: LABEL - 2]}…"
