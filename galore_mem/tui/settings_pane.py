"""The settings: one line per control, changed by keys and by the mouse."""

from typing import ClassVar

from rich.text import Text as RichText
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widget import Widget

from galore_mem.tui.board import Board
from galore_mem.tui.controls import CONTROLS, Control, shown, stepped
from galore_mem.tui.messages import Chosen, Said
from galore_mem.tui.state import State

LABEL = 15


class Wanted(Message):
    """A person wants to see what a control offers."""

    def __init__(self, about: Control) -> None:
        super().__init__()
        self.about = about


class Setting(Widget, can_focus=True):
    """One control: its label, its value, and arrows to step it."""

    HELP = """
One setting. Enter (or a click) offers its values; several of them make a row each. Left and right take the previous and
the next value; of a number, the half and the double. Backspace takes the default.
"""
    DEFAULT_CSS = """
    Setting { height: 1; color: $text; }
    Setting:hover { background: $boost; }
    Setting:focus { background: $primary 55%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "offer", "choose", id="setting.offer", tooltip="Offer the values of this setting"),
        Binding(
            "left,h",
            "step(-1)",
            "previous",
            key_display="←",
            id="setting.previous",
            tooltip="Take the value before, or the half",
        ),
        Binding(
            "right,l",
            "step(1)",
            "next",
            key_display="→",
            id="setting.next",
            tooltip="Take the next value, or the double",
        ),
        Binding("backspace,delete", "reset", "default", id="setting.reset", tooltip="Take the default", show=False),
        Binding("up,k", "app.focus_previous", "up", show=False, id="setting.up", tooltip="Go to the setting above"),
        Binding("down,j", "app.focus_next", "down", show=False, id="setting.down", tooltip="Go to the setting below"),
    ]

    def __init__(self, control: Control) -> None:
        super().__init__(id=f"set-{control.name.replace('_', '-')}")
        self.control = control
        self.tooltip = control.help
        self._state = State()

    def show(self, state: State) -> None:
        """Show another value."""
        before, self._state = shown(self.control, self._state), state
        if shown(self.control, state) != before:
            self.refresh()

    def render(self) -> RichText:
        """Label, value, and an arrow at each end where it can be stepped."""
        value, is_default = shown(self.control, self._state)
        steps = self.control.is_setting and self.control.kind != "text"
        room = self.size.width - LABEL - (4 if steps else 0)
        value = value if len(value) <= room else f"{value[: max(0, room - 1)]}…"
        text = RichText(f"{self.control.label:<{LABEL}}", style="dim" if is_default else "bold", no_wrap=True)
        text.append("◂ " if steps else "", style="dim not bold")
        text.append(value, style="not bold dim" if is_default else "bold not dim")
        if steps:
            text.append(" " * max(0, room - len(value)) + " ▸", style="dim not bold")
        return text

    def action_offer(self) -> None:
        """Offer the values."""
        self.post_message(Wanted(self.control))

    def action_step(self, step: int) -> None:
        """Take a neighbouring value."""
        values = stepped(self.control, self._state, step)
        if values is None:
            self.action_offer()
            return
        self.post_message(Chosen(self.control.name, values))

    def action_reset(self) -> None:
        """Take the default."""
        if self.control.name in ("models", "gpus"):
            self.post_message(Said(f"{self.control.label} has no default: enter offers all"))
        else:
            self.post_message(Chosen(self.control.name, ()))

    def on_click(self, event: events.Click) -> None:
        """An arrow steps, anything else offers."""
        steps = self.control.is_setting and self.control.kind != "text"
        if steps and LABEL <= event.x < LABEL + 2:
            self.action_step(-1)
        elif steps and event.x >= self.size.width - 2:
            self.action_step(1)
        else:
            self.action_offer()


class SettingsPane(VerticalScroll, can_focus=False):
    """Every control, in the order in which people think of them."""

    DEFAULT_CSS = """
    SettingsPane { background: $surface; padding: 0 1; }
    """

    def compose(self) -> ComposeResult:
        """One line per control."""
        for control in CONTROLS:
            yield Setting(control)

    def show(self, board: Board) -> None:
        """Show other values."""
        for setting in self.query(Setting):
            setting.show(board.state)
