"""Lines of `render` as strips of a Textual widget, and the looks that only the app has."""

from functools import lru_cache

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from estimators.verdict import Verdict
from galore_mem.render.text import Text

BADGES: dict[Verdict, tuple[str, str]] = {
    "fits": (" fits ", "bold #00140e on #00a878"),
    "tight": (" tight ", "bold #1c1300 on #e69f00"),
    "does-not-fit": (" does not fit ", "bold #ffffff on #a84a00"),
}
"""Words on a ground: the eye finds them first, in light and in dark."""
SHORT: dict[Verdict, tuple[str, str]] = {
    "fits": ("fits", "bold #00140e on #00a878"),
    "tight": ("tight", "bold #1c1300 on #e69f00"),
    "does-not-fit": ("over", "bold #ffffff on #a84a00"),
}
BADGE_CELLS = 14
PENDING = "…"


@lru_cache(maxsize=1024)
def style_of(words: str) -> Style:
    """A style as `render.text` spells it."""
    return Style.parse(words) if words.strip() else Style.null()


def strip_of(text: Text, width: int, base: Style) -> Strip:
    """One line, cut or filled to `width` cells, on a widget's own style."""
    segments = [
        Segment(characters, base + style_of(f"{text.style} {style}")) for characters, style in text.runs if characters
    ]
    return Strip(segments).adjust_cell_length(width, base)


def badge(verdict: Verdict) -> Text:
    """A verdict in the cells of the longest one."""
    word, style = BADGES[verdict]
    return Text().append(word, style=style).pad_right(BADGE_CELLS - len(word))


def padded(text: Text, width: int) -> Text:
    """A line of exactly `width` characters; a cut one ends in an ellipsis."""
    if len(text) > width:
        return text[: max(0, width - 1)].append("…") if width else Text()
    return text.copy().pad_right(width - len(text))
