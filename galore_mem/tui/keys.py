"""Keys that work everywhere."""

from textual.binding import Binding

from galore_mem.tui.workspace import VIEWS

_CALLED = {"compare": "comparison", "detail": "details"}
_VIEWS = tuple(
    Binding(
        str(number),
        f"view('{view}')",
        view,
        show=False,
        id=f"app.{view}",
        tooltip=f"Show the {_CALLED.get(view, view)}",
    )
    for number, view in enumerate(VIEWS, 1)
)
KEYS: tuple[Binding, ...] = (
    *_VIEWS,
    Binding("t", "do('trace')", "trace", id="app.trace", tooltip="Trace the row in the background, on fake tensors"),
    Binding("T", "do('stop_trace')", "stop", show=False, id="app.stop-trace", tooltip="Stop the trace that runs"),
    Binding("y", "do('copy_command')", "copy", id="app.copy", tooltip="Copy the command that plans the row"),
    Binding("e", "do('ask_export')", "export", id="app.export", tooltip="Write the comparison as JSON, CSV or HTML"),
    Binding(
        "o",
        "do('ask_open')",
        "open",
        id="app.open",
        tooltip="Open a measured run, a Tape or a snapshot, to compare",
    ),
    Binding("s", "become('next sort')", "sort", show=False, id="app.sort", tooltip="Sort by the next column"),
    Binding("S", "become('other order')", "reverse", show=False, id="app.reverse", tooltip="Turn the order round"),
    Binding(
        "slash",
        "do('filter_rows')",
        "filter",
        key_display="/",
        id="app.filter",
        tooltip="Show only rows with these words",
    ),
    Binding(
        "x", "become('no marks')", "unmark", show=False, id="app.unmark", tooltip="Take all marks and the baseline away"
    ),
    Binding("d", "become('other theme')", "light/dark", show=False, id="app.theme", tooltip="Light or dark"),
    Binding(
        "question_mark",
        "do('explain_focused')",
        "help",
        key_display="?",
        id="app.help",
        tooltip="Explain the focused widget and its keys",
    ),
    Binding("q", "quit", "quit", id="app.quit", tooltip="Keep the state and leave"),
)
