"""What traces and opened files have brought: kept for the session, laid beside the plan's own figures."""

from estimators.footprint import Footprint
from estimators.verdict import Fit
from galore_mem.tui.beside import Beside, of_footprint
from galore_mem.tui.board import Board
from galore_mem.tui.figures import Figures, card_key
from galore_mem.tui.rows import Row


class Results:
    """Traced footprints by row and card, and files in the order of opening."""

    def __init__(self) -> None:
        self._traced: dict[tuple[str, str], Footprint] = {}
        self.opened: list[Beside] = []

    def trace(self, key: str, card: str, footprint: Footprint) -> None:
        """Keep a traced footprint."""
        self._traced[key, card] = footprint

    def traced(self, row: Row | None, board: Board) -> Footprint | None:
        """What was traced of a row on the selected card."""
        return self._traced.get((row.key, card_key(board.card.card))) if row is not None else None

    def open(self, beside: Beside) -> None:
        """Keep what a file said; the same file again takes its place."""
        self.opened = [found for found in self.opened if found.title != beside.title] + [beside]

    def columns(self, board: Board, current: Row | None, figures: Figures) -> list[Beside]:
        """What to compare: the baseline first, then marked rows, each with its trace; or the row under the cursor."""
        rows = list(board.marked)
        if current is not None and (not rows or (len(rows) == 1 and not self._any(rows, board))):
            rows = [*rows, current]
        if board.baseline is not None:
            rows.insert(0, board.baseline)
        columns: list[Beside] = []
        for row in dict.fromkeys(rows):
            found = figures.fit(row, board.card.card)
            if isinstance(found, Fit):
                columns.append(of_footprint(row.name, found.footprint, row.key))
            traced = self.traced(row, board)
            if traced is not None:
                columns.append(of_footprint(row.name, traced, row.key))
        return [*columns, *self.opened]

    def _any(self, rows: list[Row], board: Board) -> bool:
        return any(self.traced(row, board) is not None for row in rows)
