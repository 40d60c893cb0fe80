"""Configurations against cards: the verdict and the headroom where they meet; only what is visible is drawn."""

from typing import ClassVar

from textual.binding import Binding, BindingType

from estimators.analytic.bounds import Reach
from galore_mem.render import words
from galore_mem.render.text import Text
from galore_mem.tui.board import Board
from galore_mem.tui.drawing import PENDING, SHORT, padded
from galore_mem.tui.figures import Refused, headroom_bytes, verdict_of
from galore_mem.tui.lines import Lines
from galore_mem.tui.messages import Changed

CELL = 14
WORD = 7
"""Cells of one verdict with its headroom and the blanks around it."""


class Matrix(Lines):
    """One column per card; the cursor's column is the selected card."""

    HELP = """
One column per card. Each cell says whether the configuration fits that card, and its headroom in GiB: what stays free,
or is missing, when the upper bound comes true. The highlighted column is the card that the table judges by; left and
right select another one.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "left,h,left_square_bracket",
            "card(-1)",
            "card",
            key_display="←",
            id="matrix.previous-card",
            tooltip="Select the card to the left",
        ),
        Binding(
            "right,l,right_square_bracket",
            "card(1)",
            "card",
            key_display="→",
            id="matrix.next-card",
            tooltip="Select the card to the right",
        ),
    ]
    first = 0
    """The leftmost card on the screen."""

    @property
    def head_height(self) -> int:
        """Names of cards, and what they offer."""
        return 2

    def head(self, board: Board, width: int) -> list[Text]:
        """Names of cards, and what they offer."""
        label = self._label_cells(board, width)
        shown = self._visible(board, width)
        before = f"◂ {shown[0]} more" if shown and shown[0] else "   headroom, GiB"
        after = len(board.cards) - shown[-1] - 1 if shown else 0
        more = f"{after} more ▸" if after else ""
        top, bottom = Text(f"{before:<{label}}"), Text(f"{'   usable, GiB':<{label - 9}}{more:>9}")
        for number in shown:
            card = board.cards[number]
            style = "bold #ffffff on #005f9e" if number == board.index else ""
            usable = words.gib(card.card.gpu.usable_bytes - card.card.other_use_bytes)
            top.append(f"{_short(card.title, CELL - 1):>{CELL - 1}}", style=style).append(" ")
            bottom.append(f"{usable:>{CELL - 1}} ")
        return [top, bottom]

    def body(self, board: Board, number: int, line: int, width: int) -> Text:
        """One configuration on every visible card."""
        row = board.shown[number]
        mark = "●" if row.slot in board.state.marks else " "
        pin = "◆" if row.slot == board.state.baseline else " "
        text = padded(Text.assemble((f"{mark}{pin} ", "bold"), row.name), self._label_cells(board, width))
        for place in self._visible(board, width):
            card = board.cards[place].card
            found = self.figures.reach(row, card)
            if isinstance(found, Reach):
                word, style = SHORT[verdict_of(found, card)]
                room_gib = headroom_bytes(found, card) / words.GIB
                figure = f"{room_gib:+.1f}" if abs(room_gib) < 999.95 else f"{room_gib:+,.0f}"
                text.append(f" {word:<{WORD - 1}}", style=style).append(f"{figure:>{CELL - WORD - 1}} ")
            else:
                text.append(f"{'cannot run' if isinstance(found, Refused) else PENDING:>{CELL - 1}} ", style="dim")
        return text

    def clicked_head(self, x: int, y: int) -> None:
        """Select the card."""
        self.clicked_cell(x)

    def clicked_cell(self, x: int) -> None:
        """Select the card of the cell."""
        if self.board is None:
            return
        shown = self._visible(self.board, self.columns)
        place = (x - self._label_cells(self.board, self.columns)) // CELL
        if 0 <= place < len(shown):
            self.post_message(Changed(card=self.board.cards[shown[place]].name))

    def action_card(self, step: int) -> None:
        """Select a neighbouring card."""
        if self.board is not None:
            number = max(0, min(self.board.index + step, len(self.board.cards) - 1))
            self.post_message(Changed(card=self.board.cards[number].name))

    def _label_cells(self, board: Board, width: int) -> int:
        longest = board.longest_name + 3
        return max(20, min(longest, width - 2 * CELL if width > 60 else width - CELL))

    def _visible(self, board: Board, width: int) -> range:
        """The cards on the screen, the selected one among them."""
        room = max(1, (width - self._label_cells(board, width)) // CELL)
        self.first = max(0, min(self.first, len(board.cards) - room))
        if board.index < self.first:
            self.first = board.index
        if board.index >= self.first + room:
            self.first = board.index - room + 1
        return range(self.first, min(self.first + room, len(board.cards)))


def _short(name: str, cells: int) -> str:
    return name if len(name) <= cells else f"{name[: cells - 1]}…"
