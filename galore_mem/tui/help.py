"""What the focused widget is for, and every key that works now."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import Static

TITLES = {
    "ConfigTable": "The table",
    "Matrix": "The matrix",
    "Plot": "The plot",
    "Compare": "The comparison",
    "Detail": "The detail",
    "Setting": "A setting",
    "Tabs": "The tabs",
    "Input": "A line to type in",
}


def help_text(screen: Screen[object], focused: Widget | None) -> Text:
    """The focused widget's own words, its keys, then the keys that work everywhere."""
    text = Text()
    title = TITLES.get(type(focused).__name__, "galore-mem tui")
    about: str = getattr(focused, "HELP", None) or ""
    text.append(f"{title}\n", style="bold")
    for paragraph in about.strip().split("\n\n"):
        text.append(" ".join(paragraph.split()) + "\n\n" if paragraph else "")
    own, everywhere = Text(), Text()
    seen: set[str] = set()
    for active in screen.active_bindings.values():
        binding = active.binding
        if not binding.id or binding.id in seen or not active.enabled:
            continue
        seen.add(binding.id)
        keys = ", ".join(_key_name(key) for key in _keys(screen, binding.id))
        line = f"  {keys:<16} {binding.tooltip or binding.description}\n"
        (everywhere if binding.id.startswith("app.") else own).append(line)
    if own:
        text.append("Keys here\n", style="bold").append(own).append("\n")
    return text.append("Keys everywhere\n", style="bold").append(everywhere)


def _keys(screen: Screen[object], binding_id: str) -> list[str]:
    return [key for key, active in screen.active_bindings.items() if active.binding.id == binding_id]


NAMES = {
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "slash": "/",
    "question_mark": "?",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
    "pageup": "page up",
    "pagedown": "page down",
}


def _key_name(key: str) -> str:
    return NAMES.get(key, key)


class Help(ModalScreen[None]):
    """A page of help over everything else."""

    DEFAULT_CSS = """
    Help { align: center middle; }
    Help > VerticalScroll {
        width: 84; max-width: 96%; height: auto; max-height: 92%; padding: 0 2;
        border: round $primary; background: $surface;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,enter", "dismiss", "close", id="help.close", tooltip="Close the help"),
    ]

    def __init__(self, text: Text) -> None:
        super().__init__()
        self.text = text

    def compose(self) -> ComposeResult:
        """The text, scrolled where it is long."""
        with VerticalScroll() as box:
            box.border_title = "help"
            yield Static(self.text, id="help-text")
