"""Text from outside, made harmless and visible."""

import html
import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UNSEEN = re.compile("[\x80-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]")
MINUS = "\N{MINUS SIGN}"
LONGEST = 400
"""Of a name; longer ones are cut."""


def clean(text: str) -> str:
    """A name without anything that moves the cursor, turns the direction of writing or is not seen."""
    text = _CONTROL.sub(lambda found: "␡" if found[0] == "\x7f" else chr(0x2400 + ord(found[0])), text[: LONGEST + 1])
    text = _UNSEEN.sub("\ufffd", text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def escaped(text: object) -> str:
    """Text for HTML, inside and outside of attributes."""
    return html.escape(clean(str(text)), quote=True)


def size(nbytes: int) -> str:
    """Bytes with the unit that suits them."""
    magnitude = abs(nbytes)
    for unit, factor, digits in (("GiB", 2**30, 2), ("MiB", 2**20, 1), ("KiB", 2**10, 1)):
        if magnitude >= factor:
            return f"{nbytes / factor:,.{digits}f} {unit}"
    return f"{nbytes} B"


def signed_size(nbytes: int) -> str:
    """A difference in bytes."""
    return "±0" if nbytes == 0 else ("+" if nbytes > 0 else MINUS) + size(abs(nbytes))


def words(name: str) -> str:
    """A name of the code as people read it."""
    return name.replace("_", " ")
