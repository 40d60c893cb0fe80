"""A table that draws only the lines on the screen: a head that stays, rows of one height, and a cursor."""

from typing import ClassVar

from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from galore_mem.render.text import Text
from galore_mem.tui.board import Board
from galore_mem.tui.drawing import strip_of
from galore_mem.tui.figures import Figures
from galore_mem.tui.messages import Asked, Changed, Moved

NARROWEST = 50
"""Cells below which nothing is drawn: a pane has so few only for the moment before it is hidden."""


class Lines(ScrollView, can_focus=True):
    """Rows of a board; subclasses say what stands in a line."""

    DEFAULT_CSS = """
    Lines {
        padding-right: 1; background: $surface;
        overflow-x: hidden; overflow-y: scroll;
    }
    Lines > .lines--head { color: $text-muted; background: $panel; }
    Lines > .lines--cursor { background: $primary 30%; }
    Lines:focus > .lines--cursor { background: $primary 55%; }
    Lines > .lines--line { background: $surface; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"lines--head", "lines--cursor", "lines--line"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "up", show=False, id="lines.up", tooltip="Go to the row above"),
        Binding("down,j", "move(1)", "down", show=False, id="lines.down", tooltip="Go to the row below"),
        Binding("pageup", "page(-1)", "page up", show=False, id="lines.pageup", tooltip="Go up by one screen"),
        Binding("pagedown", "page(1)", "page down", show=False, id="lines.pagedown", tooltip="Go down by one screen"),
        Binding("home,g", "edge(0)", "first", show=False, id="lines.first", tooltip="Go to the first row"),
        Binding("end,G", "edge(1)", "last", show=False, id="lines.last", tooltip="Go to the last row"),
        Binding("space", "mark", "mark", id="lines.mark", tooltip="Mark the row, to compare and to plot it"),
        Binding(
            "b",
            "pin",
            "baseline",
            show=False,
            id="lines.pin",
            tooltip="Show every other row relative to this one, or stop",
        ),
    ]
    row_height = 1
    board: reactive[Board | None] = reactive(None, layout=False)
    cursor: reactive[int] = reactive(0)

    def __init__(self, figures: Figures, *, id: str) -> None:
        super().__init__(id=id)
        self.figures = figures
        self.columns = 1
        """Cells for text."""

    def head(self, board: Board, width: int) -> list[Text]:
        """The lines above the rows."""
        raise NotImplementedError

    def body(self, board: Board, number: int, line: int, width: int) -> Text:
        """One line of one row."""
        raise NotImplementedError

    def clicked_head(self, x: int, y: int) -> None:
        """The head was clicked."""

    def clicked_cell(self, x: int) -> None:
        """A row was clicked, which now is under the cursor."""

    @property
    def head_height(self) -> int:
        """Lines of the head."""
        return 1

    def watch_board(self, board: Board | None) -> None:
        """Follow the row under the cursor to its new place."""
        if board is None:
            return
        self.cursor = max(0, min(self.cursor, len(board.shown) - 1))
        self._measure()
        self.refresh()

    def watch_cursor(self) -> None:
        """Keep the cursor on the screen."""
        if self.board is None:
            return
        top = self.cursor * self.row_height
        self.scroll_to_region(Region(0, top, 1, self.row_height + self.head_height), animate=False, force=True)
        self.refresh()

    def on_resize(self, event: events.Resize) -> None:
        """Another width may fold the rows."""
        self._measure()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """All rows and one line more, where the pane may take what it needs."""
        count = len(self.board.shown) if self.board is not None else 0
        return count * self.row_height + self.head_height + 1

    def _measure(self) -> None:
        self.columns = max(1, self.scrollable_content_region.width)
        count = len(self.board.shown) if self.board is not None else 0
        self.virtual_size = Size(self.columns, count * self.row_height + self.head_height)

    def render_line(self, y: int) -> Strip:
        """One line of the screen."""
        board, width = self.board, self.columns
        if board is None or width < NARROWEST:
            return Strip.blank(width, self._base("lines--line"))
        if y < self.head_height:
            return strip_of(self.head(board, width)[y], width, self._base("lines--head"))
        place = y - self.head_height + self.scroll_offset.y
        number, line = divmod(place, self.row_height)
        if number >= len(board.shown):
            text = Text(self.empty_text(board)) if number == 0 and line == 0 else Text()
            return strip_of(text, width, self._base("lines--line"))
        base = self._base("lines--cursor" if number == self.cursor else "lines--line")
        strip = strip_of(self.body(board, number, line, width), width, base)
        if self.figures.wanted and not self.figures.asked:
            self.figures.asked = True
            self.post_message(Asked().set_sender(self))
        return strip

    def empty_text(self, board: Board) -> str:
        """What stands there where no row does."""
        return f"  No row has {board.state.words!r}: / changes the filter" if board.state.words else "  No rows"

    def _base(self, component: str) -> Style:
        return self.get_component_rich_style(component)

    def place_cursor(self, slot: str) -> None:
        """Put the cursor on a row, if it is shown."""
        slots = [row.slot for row in self.board.shown] if self.board is not None else []
        if slot in slots:
            self.cursor = slots.index(slot)

    @property
    def current_slot(self) -> str:
        """The row under the cursor; empty where there is none."""
        shown = self.board.shown if self.board is not None else ()
        return shown[self.cursor].slot if self.cursor < len(shown) else ""

    def _go(self, number: int) -> None:
        count = len(self.board.shown) if self.board is not None else 0
        if count:
            self.cursor = max(0, min(number, count - 1))
            self.post_message(Moved(self.current_slot))

    def action_move(self, step: int) -> None:
        """Go up or down by rows."""
        self._go(self.cursor + step)

    def action_page(self, step: int) -> None:
        """Go up or down by screens."""
        rows = max(1, (self.size.height - self.head_height) // self.row_height)
        self._go(self.cursor + step * rows)

    def action_edge(self, end: int) -> None:
        """Go to the first or the last row."""
        self._go(len(self.board.shown) - 1 if end and self.board is not None else 0)

    def action_mark(self) -> None:
        """Mark the row, or take its mark away."""
        if self.board is None or not self.current_slot:
            return
        marks, slot = self.board.state.marks, self.current_slot
        kept = tuple(mark for mark in marks if mark != slot) if slot in marks else (*marks, slot)
        self.post_message(Changed(marks=kept))

    def action_pin(self) -> None:
        """Pin the row as the baseline, or unpin it."""
        if self.board is not None and self.current_slot:
            pinned = self.board.state.baseline == self.current_slot
            self.post_message(Changed(baseline="" if pinned else self.current_slot))

    def on_click(self, event: events.Click) -> None:
        """Choose a row; the head is the subclass's."""
        if self.board is None:
            return
        if event.y < self.head_height:
            self.clicked_head(event.x, event.y)
            return
        number = (event.y - self.head_height + self.scroll_offset.y) // self.row_height
        if number < len(self.board.shown):
            self._go(number)
            self.clicked_cell(event.x)
            if event.chain == 2:
                self.action_mark()
