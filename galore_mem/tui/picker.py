"""A dialogue that offers the values of one control: searched, ticked, or typed."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import ClassVar

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, OptionList, Static
from textual.widgets.option_list import Option

from galore_mem.tui.controls import Control, read, said
from galore_mem.tui.saying import line_of
from galore_mem.tui.state import Value
from profiles.errors import InputError

MOST_OFFERED = 400
MOST_WIDE, SHARE_WIDE, SHARE_HIGH = 96, 0.96, 0.92
"""Cells, and shares of the screen, that a dialogue takes at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One value that can be ticked."""

    value: Value
    text: str
    note: str = ""
    """Also searched."""


class Ticked(OptionList):
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
        width: 96; max-width: 96%; height: auto; max-height: 92%; padding: 0 1;
        border: round $primary; background: $surface;
    }
    Picker Ticked { height: auto; border: none; padding: 0; text-wrap: nowrap; text-overflow: ellipsis; }
    Picker Input { border: none; height: 1; padding: 0; background: $panel; }
    Picker Input:focus { border: none; }
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
        self._told = hint or control.help

    def compose(self) -> ComposeResult:
        """A line to type in, the offers, and what they mean."""
        with Vertical() as box:
            box.border_title = self.control.label
            searched = "search" if self.control.kind == "names" else "type a value" if self.control.free else "search"
            yield Input(
                placeholder=f"{searched}, down for the list", id="picker-input", select_on_focus=False, compact=True
            )
            yield Static("", id="picker-problem", markup=False)
            yield Ticked(id="picker-list", compact=True)
            yield Static(self._told, id="picker-hint", markup=False)
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

    def on_resize(self, event: events.Resize) -> None:
        """The list takes what the border, the line, a complaint, the hint and the buttons leave."""
        width = min(MOST_WIDE, int(event.size.width * SHARE_WIDE)) - 4
        told = len(wrap(self._told, width))
        self.query_one(Ticked).styles.max_height = max(3, int(event.size.height * SHARE_HIGH) - 5 - told)

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
        offered.add_options(Option(self._prompt(offer), id=str(number)) for number, offer in found[:MOST_OFFERED])
        if found:
            ticked = [place for place, (_, offer) in enumerate(found) if offer.value in self._ticked]
            offered.highlighted = ticked[0] if ticked and not search else 0

    def _prompt(self, offer: Offer) -> Text:
        """A box, the value, and what there is to know of it."""
        box = "[x] " if offer.value in self._ticked else "[ ] "
        style = "bold" if offer.value in self._ticked else ""
        return Text.assemble((box + offer.text, style), ("  " + offer.note, "dim"), no_wrap=True, overflow="ellipsis")

    def _highlighted(self) -> Offer | None:
        option = self.query_one(Ticked).highlighted_option
        return None if option is None else self._offers[int(option.id or 0)]

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
        found = self._highlighted()
        if exact:
            self.dismiss((exact[0],))
        elif self.control.free and ("/" in text or text.endswith(".json") or text.startswith((".", "~"))):
            self._take_typed(text)
        elif found is not None:
            self.dismiss((found.value,))
        elif self.control.free:
            self._take_typed(text)
        else:
            self._complain(f"nothing is called {text[:60]!r}")

    def _take_typed(self, text: str) -> None:
        try:
            self.dismiss(read(self.control, text))
        except InputError as error:
            self._complain(line_of(error, "this"))

    def _complain(self, text: str) -> None:
        problem = self.query_one("#picker-problem", Static)
        problem.update(text)
        problem.display = True

    @on(OptionList.OptionSelected)
    def _toggled(self, event: OptionList.OptionSelected) -> None:
        offer = self._offers[int(event.option.id or 0)]
        if offer.value in self._ticked:
            self._ticked.remove(offer.value)
        else:
            self._ticked.append(offer.value)
        event.option_list.replace_option_prompt_at_index(event.option_index, self._prompt(offer))

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
        found = self._highlighted()
        if tuple(self._ticked) == self._before and found is not None:
            self.dismiss((found.value,))
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
