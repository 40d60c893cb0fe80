"""A dialogue that offers the values of one control: searched, ticked, or typed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, SelectionList, Static
from textual.widgets.selection_list import Selection

from galore_mem.tui.controls import Control, read, said
from galore_mem.tui.state import Value
from profiles.errors import InputError

MOST_OFFERED = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One value that can be ticked."""

    value: Value
    text: str
    note: str = ""
    """Also searched."""


class Ticked(SelectionList[int]):
    """Offers, of which space ticks several and enter takes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter", "screen.take_highlighted", "take", id="offers.take", tooltip="Take what is ticked, or this line"
        ),
        Binding("space", "select", "tick", id="offers.tick", tooltip="Tick this line, to take several"),
    ]


class Picker(ModalScreen[tuple[Value, ...] | None]):
    """Values of one control; None when it is left as it was."""

    HELP = """
Type to search, or type values with commas between where they are free. Down goes to the list, space ticks several,
enter takes what is ticked; where nothing was ticked anew, it takes the line under the cursor. Escape leaves everything
as it was. Ctrl+r takes the default.
"""
    DEFAULT_CSS = """
    Picker { align: center middle; }
    Picker > Vertical {
        width: 76; max-width: 96%; height: auto; max-height: 92%; padding: 0 1;
        border: round $primary; background: $surface;
    }
    Picker SelectionList { height: auto; max-height: 16; border: none; padding: 0; }
    Picker Input { border: tall $border-blurred; }
    Picker #picker-hint { color: $text-muted; height: auto; }
    Picker #picker-problem { color: $text-error; height: auto; }
    Picker Horizontal { height: 1; align-horizontal: right; }
    Picker Button { margin-left: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "cancel", id="picker.cancel", tooltip="Leave everything as it was"),
        Binding("ctrl+r", "reset", "default", id="picker.reset", tooltip="Take the default"),
    ]

    def __init__(self, control: Control, offers: Sequence[Offer], values: Sequence[Value], hint: str = "") -> None:
        super().__init__()
        self.control = control
        self._offers = tuple(offers)
        self._before = tuple(values)
        self._ticked = list(values)
        self._hint = hint

    def compose(self) -> ComposeResult:
        """A line to type in, the offers, and what they mean."""
        with Vertical() as box:
            box.border_title = self.control.label
            searched = "search" if self.control.kind == "names" else "type a value" if self.control.free else "search"
            yield Input(placeholder=f"{searched}, down for the list", id="picker-input", select_on_focus=False)
            yield Static("", id="picker-problem", markup=False)
            yield Ticked(id="picker-list", compact=True)
            yield Static(self._hint or self.control.help, id="picker-hint", markup=False)
            with Horizontal():
                yield Button("take", id="picker-take", compact=True, variant="primary")
                yield Button("default", id="picker-default", compact=True)
                yield Button("cancel", id="picker-cancel", compact=True)

    def on_mount(self) -> None:
        """Offer everything; what is chosen is ticked."""
        self._offer("")
        self.query_one("#picker-problem").display = False
        offered = self.query_one(Ticked)
        if self.control.kind == "choice" and offered.option_count:
            offered.focus()

    def _offer(self, search: str) -> None:
        """Show the offers that have every word of `search`; those that begin with it come first."""
        wanted = search.lower().split()
        found = [
            (number, offer)
            for number, offer in enumerate(self._offers)
            if all(word in f"{offer.text} {offer.note}".lower() for word in wanted)
        ]
        found.sort(key=lambda pair: not pair[1].text.lower().startswith(search.lower()) if search else False)
        offered = self.query_one(Ticked)
        offered.clear_options()
        with self.prevent(SelectionList.SelectedChanged):
            for number, offer in found[:MOST_OFFERED]:
                text = f"{offer.text}  [dim]{offer.note}[/dim]" if offer.note else offer.text
                offered.add_option(Selection(text, number, offer.value in self._ticked))
        if found:
            ticked = [place for place, (_, offer) in enumerate(found) if offer.value in self._ticked]
            offered.highlighted = ticked[0] if ticked and not search else 0

    @on(Input.Changed)
    def _searched(self, event: Input.Changed) -> None:
        self.query_one("#picker-problem").display = False
        if self.control.kind == "names" or not self.control.free:
            self._offer(event.value)

    @on(Input.Submitted)
    def _typed(self, event: Input.Submitted) -> None:
        text = event.value.strip()
        if not text:
            self._take()
        elif self.control.kind == "names" or not self.control.free:
            self._take_found(text)
        else:
            self._take_typed(text)

    def _take_found(self, text: str) -> None:
        exact = [
            offer.value for offer in self._offers if text.lower() in (offer.text.lower(), *offer.note.lower().split())
        ]
        offered = self.query_one(Ticked)
        if exact:
            self.dismiss((exact[0],))
        elif self.control.free and ("/" in text or text.endswith(".json") or text.startswith((".", "~"))):
            self._take_typed(text)
        elif offered.option_count and offered.highlighted is not None:
            self.dismiss((self._offers[offered.get_option_at_index(offered.highlighted).value].value,))
        elif self.control.free:
            self._take_typed(text)
        else:
            self._complain(f"nothing is called {text[:60]!r}")

    def _take_typed(self, text: str) -> None:
        try:
            self.dismiss(read(self.control, text))
        except InputError as error:
            self._complain(str(error))

    def _complain(self, text: str) -> None:
        problem = self.query_one("#picker-problem", Static)
        problem.update(text)
        problem.display = True

    @on(SelectionList.SelectionToggled)
    def _toggled(self, event: SelectionList.SelectionToggled[int]) -> None:
        value = self._offers[event.selection.value].value
        if value in self._ticked:
            self._ticked.remove(value)
        else:
            self._ticked.append(value)

    def on_key(self, event: events.Key) -> None:
        """Down leads from the line into the list, up from its first line back; enter in the list takes."""
        offered, typed = self.query_one(Ticked), self.query_one(Input)
        if event.key == "down" and typed.has_focus and offered.option_count:
            offered.focus()
            event.stop()
        elif event.key == "up" and offered.has_focus and offered.highlighted in (0, None):
            typed.focus()
            event.stop()
            event.prevent_default()

    def action_take_highlighted(self) -> None:
        """What enter in the list means."""
        offered = self.query_one(Ticked)
        if tuple(self._ticked) == self._before and offered.highlighted is not None:
            self.dismiss((self._offers[offered.get_option_at_index(offered.highlighted).value].value,))
        else:
            self._take()

    def _take(self) -> None:
        order = {offer.value: number for number, offer in enumerate(self._offers)}
        self.dismiss(tuple(sorted(self._ticked, key=lambda value: order.get(value, -1))))

    @on(Button.Pressed, "#picker-take")
    def _pressed_take(self) -> None:
        text = self.query_one(Input).value.strip()
        if text and self.control.free and self.control.kind != "names":
            self._take_typed(text)
        else:
            self._take()

    @on(Button.Pressed, "#picker-default")
    def action_reset(self) -> None:
        """Take the default."""
        self.dismiss(())

    @on(Button.Pressed, "#picker-cancel")
    def action_cancel(self) -> None:
        """Leave everything as it was."""
        self.dismiss(None)


def offers_of(control: Control) -> list[Offer]:
    """What a control offers by itself."""
    return [Offer(value=value, text=said(value)) for value in control.choices]
