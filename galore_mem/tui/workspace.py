"""Where the panes stand: side by side where there is room, as tabs where there is none."""

from typing import Literal

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical
from textual.widget import Widget
from textual.widgets import Static, Tab, Tabs

from galore_mem.tui.compare import Compare
from galore_mem.tui.detail import Detail
from galore_mem.tui.figures import Figures
from galore_mem.tui.legend import Legend
from galore_mem.tui.matrix import Matrix
from galore_mem.tui.plot import Plot
from galore_mem.tui.settings_pane import SettingsPane
from galore_mem.tui.state import View
from galore_mem.tui.table import ConfigTable

VIEWS: tuple[View, ...] = ("table", "matrix", "plot", "compare", "detail", "settings")
LOWER: tuple[View, ...] = ("matrix", "plot", "compare")
SMALLEST = (60, 16)
"""Columns and rows below which nothing can be laid out."""
NORMAL = (110, 32)
WIDE = (170, 44)
Room = Literal["small", "narrow", "normal", "wide"]


class Workspace(Container):
    """Six panes in four arrangements."""

    DEFAULT_CSS = """
    Workspace { height: 1fr; }
    Workspace > #too-small { width: 100%; height: 100%; content-align: center middle; text-align: center; }
    Workspace Tabs { height: 2; }
    Workspace #sides { height: 1fr; }
    Workspace #main, Workspace #answers { width: 1fr; }
    Workspace #lower { height: 1fr; }
    Workspace SettingsPane { width: 1fr; height: 1fr; }
    Workspace Lines, Workspace Page { height: 1fr; width: 1fr; }
    Workspace.-normal SettingsPane, Workspace.-wide SettingsPane {
        width: 33; border-right: solid $panel-lighten-1;
    }
    Workspace.-normal #lower { layout: vertical; }
    Workspace.-normal Detail { border-top: solid $panel-lighten-1; border-title-color: $text-muted; }
    Workspace.-wide ConfigTable { height: auto; max-height: 50%; min-height: 10; }
    Workspace.-wide Matrix { height: auto; max-height: 50%; min-height: 6; }
    Workspace.-wide Plot { border-top: solid $panel-lighten-1; }
    Workspace.-wide #lower { border-top: solid $panel-lighten-1; }
    Workspace.-wide Detail { width: 71; border-left: solid $panel-lighten-1; }
    """

    def __init__(self, figures: Figures) -> None:
        super().__init__(id="workspace")
        self._figures = figures
        self._view: View = "table"
        self._under: View = "matrix"
        self._room: Room = "narrow"

    def compose(self) -> ComposeResult:
        """All panes; which of them show is decided by size and view."""
        yield Static("", id="too-small", markup=False)
        yield Tabs(*(Tab(f"{number} {view}", id=f"tab-{view}") for number, view in enumerate(VIEWS, 1)), id="views")
        with Horizontal(id="sides"):
            yield SettingsPane(id="settings")
            with Vertical(id="main"):
                yield ConfigTable(self._figures, id="table")
                yield Legend(id="legend")
                with Horizontal(id="lower"):
                    with Vertical(id="answers"):
                        yield Matrix(self._figures, id="matrix")
                        yield Plot(id="plot")
                        yield Compare(id="compare")
                    yield Detail(id="detail")

    def pane(self, view: View) -> Widget:
        """The pane of a view."""
        return self.query_one(f"#{view}")

    @property
    def is_small(self) -> bool:
        """Whether there is no room for anything."""
        return self._room == "small"

    @property
    def under(self) -> View:
        """Which of matrix, plot and comparison shows, where one of them does beside the table."""
        return self._under

    def shows(self, view: View) -> bool:
        """Whether a pane can be seen."""
        return bool(self.pane(view).display)

    def show(self, view: View) -> None:
        """Show a pane, and give it the keys."""
        self._view = view
        if view in LOWER:
            self._under = view
        tabs = self.query_one(Tabs)
        with self.prevent(Tabs.TabActivated):
            tabs.active = f"tab-{view}"
        self._arrange()
        self.focus_pane()

    def focus_pane(self) -> None:
        """Give the pane that was asked for the keys."""
        view, pane = self._view, self.pane(self._view)
        target = pane.query("Setting").first() if view == "settings" else pane
        self.screen.set_focus(target)  # at once: the next key may be waiting already

    def on_resize(self, event: events.Resize) -> None:
        """Another size, perhaps another arrangement."""
        width, height = self.app.size
        self._room = room_of(width, height)
        small = self.query_one("#too-small", Static)
        small.update(
            f"{width} x {height} is too small: {SMALLEST[0]} x {SMALLEST[1]} will do. Nothing is lost; q quits."
        )
        self._arrange()

    def _arrange(self) -> None:
        if not self.has_class(f"-{self._room}"):
            self.set_classes(f"-{self._room}")
        small = self._room == "small"
        self.query_one("#too-small").display = small
        self.query_one(Tabs).display = not small
        self.query_one("#sides").display = not small
        shown = set(self._panes())
        for name in VIEWS:
            self.pane(name).display = name in shown
        lower = self.query_one("#lower")
        lower.display = bool(shown & {*LOWER, "detail"})
        lower.styles.height = "45%" if self._room == "normal" and "table" in shown else "1fr"
        self.query_one("#answers").display = bool(shown & set(LOWER))
        self.query_one("#main").display = shown != {"settings"}
        self.query_one("#legend").display = "table" in shown

    def _panes(self) -> tuple[View, ...]:
        if self._room == "wide":
            under: tuple[View, ...] = ("compare",) if self._under == "compare" else ("matrix", "plot")
            return ("settings", "table", *under, "detail")
        if self._room == "normal":
            return ("settings", self._view if self._view in LOWER else "table", "detail")
        return (self._view,)

    @on(Tabs.TabActivated)
    async def _chosen(self, event: Tabs.TabActivated) -> None:
        event.stop()
        view = next(view for view in VIEWS if event.tab.id == f"tab-{view}")
        if view != self._view:
            await self.run_action(f"app.view('{view}')")


def room_of(width: int, height: int) -> Room:
    """Which arrangement a terminal gets."""
    if width < SMALLEST[0] or height < SMALLEST[1]:
        return "small"
    if width >= WIDE[0] and height >= WIDE[1]:
        return "wide"
    return "normal" if width >= NORMAL[0] and height >= NORMAL[1] else "narrow"
