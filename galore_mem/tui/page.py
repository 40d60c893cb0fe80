"""Text that is longer than its pane: lines drawn as they come on the screen, scrolled by keys and by the wheel."""

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from galore_mem.render.text import Text
from galore_mem.tui.drawing import strip_of

NARROWEST = 50
"""Cells below which nothing is drawn: a pane has so few only for the moment before it is hidden."""


class Page(ScrollView, can_focus=True):
    """Lines made for a width; subclasses say which."""

    DEFAULT_CSS = """
    Page { background: $surface; overflow-y: scroll; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "scroll_up", "up", show=False, id="page.up", tooltip="Scroll up"),
        Binding("down,j", "scroll_down", "down", show=False, id="page.down", tooltip="Scroll down"),
        Binding("left", "scroll_left", "left", show=False, id="page.left", tooltip="Scroll left"),
        Binding("right", "scroll_right", "right", show=False, id="page.right", tooltip="Scroll right"),
        Binding("pageup", "page_up", "page up", show=False, id="page.pageup", tooltip="Scroll up by one screen"),
        Binding("pagedown", "page_down", "page down", show=False, id="page.pagedown", tooltip="Scroll down by one"),
        Binding("home", "scroll_home", "top", show=False, id="page.top", tooltip="Scroll to the top"),
        Binding("end", "scroll_end", "end", show=False, id="page.end", tooltip="Scroll to the end"),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._lines: list[Text] = []

    def lines(self, width: int) -> list[Text]:
        """What to show in `width` cells."""
        raise NotImplementedError

    def renew(self) -> None:
        """Make the lines again."""
        width = self.scrollable_content_region.width
        self._lines = self.lines(width) if width >= NARROWEST else []
        longest = max((line.cell_len for line in self._lines), default=0)
        self.virtual_size = Size(max(longest, width), len(self._lines))
        self.refresh()

    def on_resize(self, event: events.Resize) -> None:
        """Lines are made for a width."""
        self.renew()

    def on_show(self) -> None:
        """Whatever changed while nobody looked."""
        self.renew()

    def render_line(self, y: int) -> Strip:
        """One line of the screen."""
        left, top = self.scroll_offset
        width = self.scrollable_content_region.width
        place = y + top
        text = self._lines[place] if place < len(self._lines) else Text()
        return strip_of(text[left:] if left else text, width, self.rich_style)

    @property
    def plain(self) -> str:
        """All lines as text."""
        return "\n".join(line.plain.rstrip() for line in self._lines)
