"""The first line: what is compared, and against which card."""

from rich.text import Text
from textual.widgets import Static

from estimators.analytic.parameters import parameter_count
from galore_mem.render import words
from galore_mem.tui.board import Board


class TopLine(Static):
    """Model, card, and what is hidden by a filter."""

    DEFAULT_CSS = """
    TopLine { height: 1; background: $panel; color: $text; padding: 0 1; }
    """

    def show(self, board: Board) -> None:
        """Show another board."""
        shapes = list(dict.fromkeys(row.named.shape for row in board.rows))
        if len(shapes) == 1:
            model = f"{shapes[0].name}, {words.parameters(parameter_count(shapes[0]))} parameters"
        else:
            model = f"{len(shapes)} models"
        line = Text.assemble((model, "bold"), " on ", (board.card.title, "bold"), no_wrap=True, overflow="ellipsis")
        usable = f"{words.gib(board.usable_bytes)} GiB usable"
        if board.card.card.other_use_bytes:
            usable += f" beside {words.gib(board.card.card.other_use_bytes)} of others"
        if len(board.shown) < len(board.rows):  # said first: a narrow screen cuts off the end
            line.append(f" · {len(board.shown)} of {len(board.rows)} rows with {board.state.words!r}", style="bold")
            line.append(f" · {usable}")
        else:
            line.append(f", {usable}")
            line.append(f" · {len(board.rows)} configurations" if len(board.rows) > 6 else "")
        if board.marked:
            line.append(f" · {len(board.marked)} marked")
        if board.baseline is not None:
            line.append(f" · against {board.baseline.name}")
        self.update(line, layout=False)
