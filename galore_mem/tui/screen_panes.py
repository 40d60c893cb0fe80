"""All panes of the screen, told the same thing at the same time."""

from textual.screen import Screen

from estimators.footprint import Footprint
from galore_mem.tui.board import Board
from galore_mem.tui.compare import Compare
from galore_mem.tui.detail import Detail
from galore_mem.tui.explain import Explained
from galore_mem.tui.lines import Lines
from galore_mem.tui.plot import Plot
from galore_mem.tui.rows import Row
from galore_mem.tui.settings_pane import SettingsPane
from galore_mem.tui.top_line import TopLine
from galore_mem.tui.workspace import Workspace


class Panes:
    """Looked up once; a screen keeps its panes."""

    def __init__(self, screen: Screen[object]) -> None:
        self.workspace = screen.query_one(Workspace)
        self.plot = screen.query_one(Plot)
        self.compare = screen.query_one(Compare)
        self._top = screen.query_one(TopLine)
        self._settings = screen.query_one(SettingsPane)
        self._detail = screen.query_one(Detail)
        self._tables = tuple(screen.query(Lines).results(Lines))

    def show(self, board: Board) -> None:
        """Show a board, with the cursor on its row."""
        self._top.show(board)
        self._settings.show(board)
        for table in self._tables:
            table.board = board
            table.place_cursor(board.state.current)
            table.refresh()

    def place(self, current: str) -> None:
        """Put every cursor on a row."""
        for table in self._tables:
            table.place_cursor(current)

    def detail(self, row: Row | None, explained: Explained | None, traced: Footprint | None) -> None:
        """Show what is known of the row under the cursor."""
        if explained is not None and row is not None:
            self._detail.show(row.name, explained, traced)
        elif row is not None:
            self._detail.await_row(row.name, row.problem)
        else:
            self._detail.await_row("")

    def refuse(self, row: Row, reason: str) -> None:
        """The row cannot run on the card."""
        self._detail.await_row(row.name, reason)
