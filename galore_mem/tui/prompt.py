"""One line to type: a path, or a filter."""

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from galore_mem.tui.messages import Changed
from galore_mem.tui.workspace import Workspace

Told = Callable[[str], str]
"""From a text to a line about it."""


def nothing(text: str) -> str:
    """There is nothing to say of it."""
    return ""


class Prompt(ModalScreen[str | None]):
    """Asks for one line; None when it was given up."""

    HELP = "Type, then enter; what cannot be used is said below the line. Escape gives up."
    DEFAULT_CSS = """
    Prompt { align: center middle; }
    Prompt > Vertical {
        width: 76; max-width: 96%; height: auto; padding: 0 1; border: round $primary; background: $surface;
    }
    Prompt Static { color: $text-muted; }
    Prompt #prompt-problem { color: $text-error; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "give_up", "cancel", id="prompt.cancel", tooltip="Give up")
    ]

    def __init__(self, title: str, value: str, hint: str, check: Told, doubt: Told = nothing) -> None:
        """A dialogue that stays until what is typed can be used.

        Args:
            title: what is asked for.
            value: what stands in the line at first.
            hint: what may stand there.
            check: why a text cannot be used, in a line; empty where it can.
            doubt: what a second enter would do, in a line; empty where there is nothing to ask back.
        """
        super().__init__()
        self._asked = title
        self._value = value
        self._hint = hint
        self._check = check
        self._doubt = doubt
        self._doubted = ""

    def compose(self) -> ComposeResult:
        """The line, and what may stand in it."""
        with Vertical() as box:
            box.border_title = self._asked
            yield Input(self._value, id="prompt-input")
            yield Static("", id="prompt-problem", markup=False)
            yield Static(self._hint, markup=False)

    def on_mount(self) -> None:
        """Nothing is wrong yet."""
        self.query_one("#prompt-problem").display = False

    @on(Input.Changed)
    def _typed(self) -> None:
        self.query_one("#prompt-problem").display = False

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        text = event.value.strip()
        problem = self._check(text) if text else "nothing is typed: name a file, or give up with escape"
        if not problem and text != self._doubted:
            problem, self._doubted = self._doubt(text), text
        if problem:
            shown = self.query_one("#prompt-problem", Static)
            shown.update(problem)
            shown.display = True
        else:
            self.dismiss(text)

    def action_give_up(self) -> None:
        """Leave everything as it was."""
        self.dismiss(None)


class FilterBar(Input):
    """Shows only the rows that have every word; hidden while nobody filters."""

    HELP = """
Only rows that have every word stay: method, rank, setting, verdict (fits, tight, does not fit), model. Enter goes back
to the rows and keeps the filter; escape takes it away.
"""
    DEFAULT_CSS = """
    FilterBar { display: none; height: 1; border: none; padding: 0 1; background: $panel; }
    FilterBar:focus { border: none; }
    FilterBar.-open { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "clear", "no filter", id="filter.clear", tooltip="Take the filter away"),
    ]

    def __init__(self) -> None:
        super().__init__(placeholder="words that a row must have: galore 8-bit fits", id="filter", compact=True)

    def open(self, words: str) -> None:
        """Show the line and give it the keys."""
        with self.prevent(Input.Changed):
            self.value = words
        self.add_class("-open")
        self.focus()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(Changed(words=event.value))

    @on(Input.Submitted)
    def _kept(self, event: Input.Submitted) -> None:
        event.stop()
        self._close()

    def action_clear(self) -> None:
        """Take the filter away."""
        self.post_message(Changed(words=""))
        self._close()

    def _close(self) -> None:
        self.remove_class("-open")
        self.screen.query_one(Workspace).focus_pane()
