"""What the glyphs of the bars mean."""

from rich.text import Text
from textual.widgets import Static

from galore_mem.render.palette import BOUND, CONTEXT, PARTS


class Legend(Static):
    """One line, or as many as the width asks for."""

    DEFAULT_CSS = """
    Legend { height: auto; max-height: 3; padding: 0 1; color: $text-muted; background: $surface; }
    """

    def on_mount(self) -> None:
        """The same at all times."""
        line = Text()
        for part in (*PARTS, CONTEXT, BOUND):
            line.append(part.glyph, style=part.style).append(f"\u00a0{part.name.replace(' ', chr(0xA0))}  ")
        self.update(line.append("┃", style="bold").append("\u00a0the\u00a0card"))
