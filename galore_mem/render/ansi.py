"""Styles as the escape codes that a terminal of some number of colours understands."""

from collections.abc import Iterator
from typing import Literal

from galore_mem.render.text import Text

Depth = Literal["none", "plain", "16", "256", "truecolor"]
"""`none`: no escape codes at all; `plain`: bold and dim, but no colours."""
_SIXTEEN = {
    "#0072b2": 94,
    "#d55e00": 31,
    "#e69f00": 33,
    "#cc79a7": 35,
    "#009e73": 32,
    "#f0e442": 93,
    "#56b4e9": 96,
    "#999999": 90,
    "#777777": 90,
}
"""Where there are sixteen colours: the basic one that takes the place of each, so that no two parts share one."""
_LEVELS = (0, 95, 135, 175, 215, 255)
"""Steps of the 6 x 6 x 6 cube of the 256 colours."""
Colour = tuple[int, int, int]


def escaped(text: Text, depth: Depth) -> str:
    """`text` with escape codes, without a line end."""
    if depth == "none":
        return text.plain
    return "".join(_wrapped(characters, _codes(f"{text.style} {style}", depth)) for characters, style in text.runs)


def _wrapped(characters: str, codes: str) -> str:
    return f"\x1b[{codes}m{characters}\x1b[0m" if codes else characters


def _codes(style: str, depth: Depth) -> str:
    """SGR parameters; a later word wins over an earlier one of its kind."""
    chosen: dict[str, str] = {}
    words = iter(style.split())
    for word in words:
        if word == "not":
            chosen.pop(next(words), None)
        elif word == "on":
            chosen["on"] = _colour(next(words), depth, ground=True)
        elif word.startswith("#"):
            chosen["colour"] = _colour(word, depth, ground=False)
        else:
            chosen[word] = {"bold": "1", "dim": "2"}[word]
    return ";".join(filter(None, (chosen.get(kind) for kind in ("bold", "dim", "colour", "on"))))


def _colour(word: str, depth: Depth, *, ground: bool) -> str:
    wanted = _parsed(word[1:])
    if depth == "truecolor":
        return ";".join(map(str, (48 if ground else 38, 2, *wanted)))
    if depth == "256":
        red, green, blue = (min(range(6), key=lambda n: abs(_LEVELS[n] - part)) for part in wanted)
        return f"{48 if ground else 38};5;{16 + 36 * red + 6 * green + blue}"
    if depth == "16" and not ground:
        return str(_SIXTEEN.get(word, ""))
    return ""


def _parsed(digits: str) -> Colour:
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


def joined(lines: list[Text], depth: Depth) -> Iterator[str]:
    """Lines with their ends; blanks at an end are dropped."""
    for line in lines:
        line.rstrip()
        yield f"{escaped(line, depth)}\n"
