"""The terminal: how wide it is, which colours and which characters it has."""

import sys
from dataclasses import dataclass, field

from rich.console import Console
from rich.text import Text

from galore_mem import streams

NARROWEST = 40
MEDIUM = 64
"""Below this many columns views stack what they otherwise lay side by side."""
GLYPHS = "█▓▒░▚▞▤▪·┃▶"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """Where a view is drawn."""

    width: int
    unicode: bool = True
    """Whether block characters can be shown; ASCII stands in where not."""
    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True), repr=False)

    def text(self, lines: list[Text]) -> str:
        """The lines with the escape codes that the terminal understands."""
        with self.console.capture() as capture:
            for line in lines:
                line.rstrip()
                self.console.print(line)
        return capture.get()

    def show(self, lines: list[Text]) -> None:
        """Write the lines to stdout."""
        streams.write(self.text(lines))


def terminal() -> Terminal:
    """The one that stdout is connected to; a pipe is 80 columns wide, or COLUMNS, and has no colours."""
    console = Console(highlight=False, soft_wrap=True)
    return Terminal(width=max(NARROWEST, console.width), unicode=can_show(GLYPHS), console=console)


def can_show(text: str) -> bool:
    """Whether stdout's encoding has every character of `text`."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
