"""The catalogue's lists, drawn for a terminal."""

from collections.abc import Sequence

from galore_mem.answers.catalogue import MethodRow


def methods_text(rows: Sequence[MethodRow]) -> str:
    """Methods, one a line."""
    width = max(len(row.name) for row in rows)
    return "".join(f"{row.name:<{width}}  {row.summary}\n" for row in rows)
