"""Catalogues kept as JSON lines, `name` and `aliases` first, so that one row is found and parsed alone."""

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

from profiles.errors import InputError

_HERE = os.path.dirname(os.path.abspath(__file__))

Row = dict[str, Any]


def key(name: str) -> str:
    """A name as catalogues compare it: lower case, with single hyphens for spaces and underscores."""
    return "-".join(name.lower().replace("_", " ").replace("-", " ").split())


def read_lines(file: str) -> list[str]:
    """The lines of one catalogue file."""
    with open(os.path.join(_HERE, file), encoding="utf-8") as stream:
        return stream.read().splitlines()


def read_rows(file: str) -> Iterator[Row]:
    """Every row of one catalogue file, parsed."""
    return map(json.loads, read_lines(file))


def names(row: Row) -> list[str]:
    """Name and aliases of a row."""
    return [row["name"], *row["aliases"]]


def find_row(file: str, name: str) -> Row | None:
    """The row whose name or alias is `name`, parsing no other; None where there is none."""
    wanted = key(name)
    for line in read_lines(file):
        head = line[: line.index("]")]
        if wanted in key(head):
            row: Row = json.loads(line)
            if wanted in map(key, names(row)):
                return row
    return None


def nearest(name: str, rows: Iterable[Row], count: int = 4) -> list[str]:
    """Names that resemble `name`, at most one per row, best first."""
    from difflib import SequenceMatcher

    wanted = _squeezed(name)
    matcher = SequenceMatcher(b=wanted, autojunk=False)
    scored = []
    for row in rows:
        best = (0.0, "")
        for spelling in names(row):
            matcher.set_seq1(_squeezed(spelling))
            likeness = max(matcher.ratio(), 0.7 if len(wanted) > 1 and wanted in _squeezed(spelling) else 0.0)
            best = max(best, (likeness, spelling), key=lambda pair: pair[0])
        scored.append(best)
    scored.sort(key=lambda pair: -pair[0])
    return [spelling for likeness, spelling in scored[:count] if likeness >= 0.6]


def unknown(kind: str, name: str, rows: Iterable[Row], listing: str) -> InputError:
    """The error for a name that no row has, with the nearest ones.

    Args:
        kind: what was looked for, for instance `model`.
        name: what was typed.
        rows: all there are.
        listing: the command that lists them.
    """
    several = [part.strip() for part in name.split(",") if part.strip()]
    if len(several) > 1 and kind == "GPU":
        return InputError(f"unknown {kind} {name[:80]!r}", "", f"put blanks between names: {' '.join(several)[:80]}")
    near = nearest(name[:80], rows)
    fix = f"did you mean {', '.join(near)}? {listing} lists all" if near else f"{listing} lists all"
    return InputError(f"unknown {kind} {name if len(name) <= 80 else name[:77] + '...'!r}", "", fix)


def _squeezed(name: str) -> str:
    return key(name).replace("-", "")
