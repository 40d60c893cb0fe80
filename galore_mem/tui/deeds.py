"""What a key does beyond changing the state: dialogues, the clipboard, traces."""

from pathlib import Path
from typing import TYPE_CHECKING

from galore_mem.answers.command_line import command_line
from galore_mem.errors import UsageError
from galore_mem.render import words
from galore_mem.tui.controls import Control, chosen
from galore_mem.tui.exports import check_path, export
from galore_mem.tui.figures import card_key
from galore_mem.tui.help import Help, help_text
from galore_mem.tui.messages import Chosen
from galore_mem.tui.offers import offers_for
from galore_mem.tui.picker import Picker
from galore_mem.tui.progress_line import ProgressLine
from galore_mem.tui.prompt import FilterBar, Prompt
from galore_mem.tui.saying import line_of
from galore_mem.tui.tracing import request_of

if TYPE_CHECKING:
    from galore_mem.tui.app import GaloreMemApp
    from galore_mem.tui.state import Value


def offer(app: "GaloreMemApp", control: Control) -> None:
    """Offer the values of a control."""
    offers, hint = offers_for(control, app.board)

    def take(values: "tuple[Value, ...] | None") -> None:
        if values is not None:
            app.post_message(Chosen(control.name, values))

    app.push_screen(Picker(control, offers, chosen(control, app.state), hint), take)


def ask_export(app: "GaloreMemApp") -> None:
    """Write the marked rows, or all that are shown, on every card; the selected card first."""
    board = app.board
    rows = board.marked or board.shown
    cards = [board.card, *(card for card in board.cards if card != board.card)]
    columns = app.results.columns(board, app.row, app.session.figures)

    def write(name: str | None) -> None:
        if name is not None:
            app.tasks.run("export", lambda: export(Path(name).expanduser(), rows, cards, columns))

    which = "marked" if board.marked else "shown"
    many = f"{words.counted(len(rows), 'configuration')} {which}, on {words.counted(len(cards), 'card')}"
    hint = f"The {many}. The ending decides: .json, .csv or .html."
    app.push_screen(Prompt("export to", "comparison.json", hint, _unwritable, _replaced), write)


def _unwritable(name: str) -> str:
    try:
        check_path(Path(name).expanduser())
    except UsageError as error:
        return line_of(error, "this")
    except RuntimeError:
        return f"{name.partition('/')[0]} is nobody's folder"
    return ""


def _replaced(name: str) -> str:
    path = Path(name).expanduser()
    return f"{path.name} exists: enter again replaces it" if path.exists() else ""


def _unreadable(name: str) -> str:
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        return f"{name.partition('/')[0]} is nobody's folder"
    return "" if path.is_file() else f"{path} is {'a folder' if path.is_dir() else 'not there'}: name a file"


def ask_open(app: "GaloreMemApp") -> None:
    """Lay a file beside."""

    def read(name: str | None) -> None:
        if name is not None:
            app.tasks.read_file(Path(name).expanduser())

    hint = "What galore-mem trace or profile wrote with --json or --tape, or a snapshot of torch."
    app.push_screen(Prompt("open", "", hint, _unreadable), read)


def copy_command(app: "GaloreMemApp") -> None:
    """Copy the command that plans the row under the cursor, and show it: not every terminal has a clipboard."""
    row, cards = app.row, (app.board.card.name,)
    if row is not None:
        line = command_line("plan", row.model, row.workload, cards, other_use=app.state.other_use)
        app.copy_to_clipboard(line)
        app.say(app.clipboard)


def trace(app: "GaloreMemApp") -> None:
    """Trace the row under the cursor in the background."""
    line, row, card = app.query_one(ProgressLine), app.row, app.board.card
    if row is None or line.is_running:
        app.say("a trace runs already: T stops it" if row is not None else "there is no row to trace", "warning")
    else:
        line.begin(row.name)
        app.tasks.trace(request_of(row, card), card_key(card.card), line)


def stop_trace(app: "GaloreMemApp") -> None:
    """Stop the trace that runs."""
    if not app.tasks.tracer.stop():
        app.say("no trace runs")


def filter_rows(app: "GaloreMemApp") -> None:
    """Open the line that filters."""
    app.query_one(FilterBar).open(app.state.words)


def explain_focused(app: "GaloreMemApp") -> None:
    """What the focused widget is for, and its keys."""
    app.push_screen(Help(help_text(app.screen, app.focused)))
