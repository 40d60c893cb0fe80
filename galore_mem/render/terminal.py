"""The terminal: how wide it is, which colours and which characters it has."""

import os
import sys
from dataclasses import dataclass

from galore_mem import streams
from galore_mem.render.ansi import Depth, joined
from galore_mem.render.text import Text

NARROWEST = 40
MEDIUM = 64
"""Below this many columns views stack what they otherwise lay side by side."""
GLYPHS = "█▓▒░▚▞▤▪·┃▶"
PIPE_WIDTH = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """Where a view is drawn."""

    width: int
    unicode: bool = True
    """Whether block characters can be shown; ASCII stands in where not."""
    depth: Depth = "none"
    """How many colours there are."""

    def text(self, lines: list[Text]) -> str:
        """The lines with the escape codes that the terminal understands."""
        return "".join(joined(lines, self.depth))

    def show(self, lines: list[Text]) -> None:
        """Write the lines to stdout."""
        streams.write(self.text(lines))


def terminal() -> Terminal:
    """The one that stdout is connected to; a pipe is 80 columns wide, or COLUMNS, and has no colours."""
    return Terminal(width=max(NARROWEST, _width()), unicode=can_show(GLYPHS), depth=_depth())


def can_show(text: str) -> bool:
    """Whether stdout's encoding has every character of `text`."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _width() -> int:
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or PIPE_WIDTH
    except (OSError, ValueError, AttributeError):
        return PIPE_WIDTH


def _depth() -> Depth:
    """By the conventions that terminals share: NO_COLOR, FORCE_COLOR, TERM and COLORTERM."""
    forced = bool(os.environ.get("FORCE_COLOR"))
    if not forced and not (sys.stdout is not None and sys.stdout.isatty()):
        return "none"
    if os.environ.get("NO_COLOR"):
        return "plain"
    term = os.environ.get("TERM", "").lower()
    if not forced and (term in ("dumb", "unknown") or (os.name == "nt" and not _windows_understands_escapes())):
        return "none"
    if os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit") or os.name == "nt":
        return "truecolor"
    return "256" if "256" in term else "16"


def _windows_understands_escapes() -> bool:
    """Switch a Windows console to escape codes; False before Windows 10."""
    import ctypes

    kernel: object = getattr(ctypes, "windll").kernel32  # noqa: B009
    mode = ctypes.c_ulong()
    handle = kernel.GetStdHandle(-11)  # type: ignore[attr-defined]
    if not kernel.GetConsoleMode(handle, ctypes.byref(mode)):  # type: ignore[attr-defined]
        return False
    return bool(kernel.SetConsoleMode(handle, mode.value | 4))  # type: ignore[attr-defined]
