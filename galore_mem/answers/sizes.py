"""Sizes as people type them."""

import re

from profiles.errors import InputError

_UNITS = {"b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_UNITS |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


def size_bytes(text: str | int, option: str) -> int:
    """Bytes of `800MiB`, `22 GiB` or `24GB`; an integer is bytes already.

    Raises:
        InputError: no number with a unit; names `option`.

    >>> size_bytes("22GiB", "--budget")
    23622320128
    """
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?) ?([a-z]{1,3})", str(text).strip().lower())
    if found is None or found[2] not in _UNITS:
        raise InputError(f"{option} {text} is not a size", "", f"give a number with its unit: {option} 22GiB")
    return round(float(found[1]) * _UNITS[found[2]])


def size_text(nbytes: int) -> str:
    """Bytes as `size_bytes` reads them, in the largest unit that is exact; empty for none.

    >>> size_text(800 << 20), size_text(0)
    ('800MiB', '')
    """
    for name, unit in (("GiB", 2**30), ("MiB", 2**20)):
        if nbytes and nbytes % unit == 0:
            return f"{nbytes // unit}{name}"
    return f"{nbytes}B" if nbytes else ""


def tokens_of(count: int) -> str:
    """A number of tokens in words.

    >>> tokens_of(1), tokens_of(2048)
    ('1 token', '2,048 tokens')
    """
    return f"{count:,} token{'s' * (count != 1)}"
