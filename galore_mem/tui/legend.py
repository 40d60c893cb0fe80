"""What the glyphs of the bars mean."""

from rich.text import Text as RichText
from textual.geometry import Size
from textual.widget import Widget

from galore_mem.render.flow import flow
from galore_mem.render.palette import BOUND, CONTEXT, PARTS
from galore_mem.render.text import Text
from galore_mem.tui.drawing import style_of


class Legend(Widget):
    """One line, or as many as the width asks for."""

    DEFAULT_CSS = """
    Legend { height: auto; padding: 0 1; color: $text-muted; background: $surface; }
    """

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """As many lines as the words need."""
        return len(_lines(width))

    def render(self) -> RichText:
        """A glyph and its word stay together."""
        text = RichText(no_wrap=True)
        for number, line in enumerate(_lines(self.size.width)):
            text.append("\n" if number else "")
            for characters, style in line.runs:
                text.append(characters.replace("\u00a0", " "), style=style_of(style))
        return text


def _lines(width: int) -> list[Text]:
    line = Text()
    for part in (*PARTS, CONTEXT, BOUND):
        line.append(part.glyph, style=part.style).append(f"\u00a0{part.name.replace(' ', chr(0xA0))}  ")
    line.append("┃", style="bold").append("\u00a0the\u00a0card")
    return flow(line, max(1, width))
