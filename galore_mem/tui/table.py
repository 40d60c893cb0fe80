"""The table of configurations: each with its bar against the card's capacity, its figures and its verdict."""

from typing import ClassVar, Literal

from textual.binding import Binding, BindingType

from estimators.analytic.bounds import Reach
from estimators.verdict import Fit
from galore_mem.render import words
from galore_mem.render.bars import Scale, bar
from galore_mem.render.plan_overview import axis
from galore_mem.render.text import Text
from galore_mem.tui.board import Board
from galore_mem.tui.drawing import BADGE_CELLS, PENDING, badge, padded
from galore_mem.tui.figures import Refused, headroom_bytes, verdict_of
from galore_mem.tui.lines import Lines
from galore_mem.tui.messages import Changed
from galore_mem.tui.rows import Row
from galore_mem.tui.state import SORTS

UNFOLDED = 124
"""From this many columns on a row is one line."""
FIGURES = 2 + 8 + 9 + 2 + BADGE_CELLS
"""Cells of peak, headroom and verdict with the blanks before them."""
TAIL = 23 + 9 + 7
"""Cells of the moment of the peak and of how far the row could go."""


class ConfigTable(Lines):
    """Configurations against the selected card."""

    HELP = """
One row per configuration. The bar is what the process holds at its peak, part by part, and dots up to the upper bound;
the line across it is what the selected card offers.

Peak is what nvidia-smi would show. Headroom is what stays free, or is missing, when the upper bound comes true. The
verdict: fits, even at the bound; tight, only the central figure does; does not fit. Where there is room, longest and
batch say how far the row could go on this card. With a baseline pinned, peaks are relative to it. A click on a title
sorts.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "left_square_bracket",
            "card(-1)",
            "card",
            show=False,
            key_display="[",
            id="table.previous-card",
            tooltip="Judge by the previous card",
        ),
        Binding(
            "right_square_bracket",
            "card(1)",
            "card",
            key_display="]",
            id="table.next-card",
            tooltip="Judge by the next card",
        ),
    ]

    @property
    def folded(self) -> bool:
        """Whether a row takes two lines."""
        return self.columns < UNFOLDED

    @property
    def row_height(self) -> int:  # type: ignore[override]
        """Lines of a row."""
        return 2 if self.folded else 1

    @property
    def head_height(self) -> int:
        """Lines of the head."""
        return 2 if self.folded else 1

    def head(self, board: Board, width: int) -> list[Text]:
        """Names of columns, and the scale of the bars."""
        figures = (
            f"  {_titled(board, 'peak', 8)}{_titled(board, 'headroom', 9)}  {_titled(board, 'verdict', -BADGE_CELLS)}"
        )
        tail = f" {'at':<22}{'longest':>9}{'batch':>7}"
        name = _titled(board, "name", -1)
        if self.folded:
            left = width - FIGURES
            second = f"   {axis(_scale(board, left - 4))} "
            return [Text(f"   {name:<{left - 3}}{figures}"), Text(second + (tail if width >= left + TAIL else " at"))]
        left = self._name_cells(board)
        return [Text(f"   {name:<{left - 3}} {axis(_scale(board, self._bar_cells(board, width)))}{figures}{tail}")]

    def body(self, board: Board, number: int, line: int, width: int) -> Text:
        """Name and figures, and the bar: below each other where the screen is narrow."""
        row = board.shown[number]
        if self.folded:
            left = width - FIGURES
            if line == 0:
                return padded(_name(board, row), left).append(self._figures(board, row))
            text = Text("   ").append(self._bar(board, row, left - 4)).append(" ")
            return text.append(self._tail(board, row, width - left))
        text = padded(_name(board, row), self._name_cells(board)).append(" ")
        text.append(self._bar(board, row, self._bar_cells(board, width)))
        return text.append(self._figures(board, row)).append(self._tail(board, row, TAIL))

    def clicked_head(self, x: int, y: int) -> None:
        """Sort by the column; a second time turns it round."""
        board, width = self.board, self.columns
        if board is None:
            return
        figures = width - FIGURES - (0 if self.folded else TAIL)
        borders = (
            ("name", figures),
            ("peak", figures + 10),
            ("headroom", figures + 19),
            ("verdict", figures + FIGURES),
        )
        if self.folded and y == 1:
            return
        key = next((name for name, end in borders if x < end), "asked")
        again = board.state.sort == key
        self.post_message(Changed(sort=key, descending=again and not board.state.descending))

    def action_card(self, step: int) -> None:
        """Judge by a neighbouring card."""
        if self.board is not None:
            cards = self.board.cards
            self.post_message(Changed(card=cards[(self.board.index + step) % len(cards)].name))

    def _name_cells(self, board: Board) -> int:
        longest = board.longest_name
        return min(max(longest, 13), max(34, self.columns // 3)) + 3

    def _bar_cells(self, board: Board, width: int) -> int:
        return max(8, width - self._name_cells(board) - 1 - FIGURES - TAIL)

    def _bar(self, board: Board, row: Row, cells: int) -> Text:
        found = self.figures.fit(row, board.card.card)
        if isinstance(found, Fit):
            return bar(found.footprint, _scale(board, cells), unicode=True)
        if isinstance(found, Refused):
            return padded(Text(found.reason, style="dim"), cells)
        return padded(Text(PENDING, style="dim"), cells)

    def _figures(self, board: Board, row: Row) -> Text:
        card = board.card.card
        found = self.figures.reach(row, card)
        if not isinstance(found, Reach):
            word = "cannot run" if isinstance(found, Refused) else PENDING
            return Text("  " + " " * 19).append(f" {word:<{BADGE_CELLS - 1}}", style="dim")
        peak = words.gib(found.process_bytes)
        base = self.figures.reach(board.baseline, card) if board.baseline not in (None, row) else None
        if isinstance(base, Reach):
            peak = words.signed_gib(found.process_bytes - base.process_bytes)
        text = Text(f"  {peak:>8}{words.signed_gib(headroom_bytes(found, card)):>9}  ")
        return text.append(badge(verdict_of(found, card)))

    def _tail(self, board: Board, row: Row, cells: int) -> Text:
        found = self.figures.fit(row, board.card.card)
        if not isinstance(found, Fit):
            return Text()
        text = Text(f" {words.moment(found.footprint.peak.label):<22}", style="dim")
        if cells >= TAIL:
            text.append(f"{words.limit(found.max_sequence_length):>9}{words.limit(found.max_micro_batch_size):>7}")
        return text


def _scale(board: Board, cells: int) -> Scale:
    """One scale for every row, whatever is known of them: 1.6 times the card."""
    return Scale(cells=max(4, cells), full_bytes=board.usable_bytes * 8 // 5, capacity_bytes=board.usable_bytes)


def _titled(board: Board, key: Literal["name", "peak", "headroom", "verdict"], width: int) -> str:
    """A column's title; an arrow says which one sorts."""
    title = SORTS[key]
    if key == "peak" and board.baseline is not None:
        title = "+/- peak"[:8]
    if board.state.sort == key:
        title += "▾" if board.state.descending else "▴"
    return f"{title:<{-width}}" if width < 0 else f"{title:>{width}}"


def _name(board: Board, row: Row) -> Text:
    """Marks before the name: `●` marked, `◆` baseline."""
    mark = "●" if row.slot in board.state.marks else " "
    pin = "◆" if row.slot == board.state.baseline else " "
    method = row.workload.method.name
    before, found, after = row.name.partition(method)
    return Text.assemble((f"{mark}{pin} ", "bold"), before, (found, "bold"), after)
