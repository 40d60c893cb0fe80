"""What is alive at a peak, in the parts that every answer names alike: a plan's row and a trace's mean the same."""

from collections.abc import Mapping

from galore_mem.render import words
from galore_mem.render.palette import Part, shares

SHOWN_BYTES = 2**30 // 200
"""Half of the last digit of GiB: less would be a row of zeros."""


def parts_alive(by_category: Mapping[str, int]) -> tuple[list[tuple[Part, int, str]], str]:
    """Parts with their bytes and what they hold besides their own category, largest first; and those too small to show.

    Where every part is too small all are shown.
    """
    ranked = sorted(shares(by_category), key=lambda share: -share[1])
    shown = [(part, nbytes, _besides(part, by_category)) for part, nbytes in ranked if nbytes >= SHOWN_BYTES]
    if not shown:
        return [(part, nbytes, "") for part, nbytes in ranked], ""
    return shown, ", ".join(part.name for part, nbytes in ranked if nbytes < SHOWN_BYTES)


def _besides(part: Part, by_category: Mapping[str, int]) -> str:
    """`of which workspaces 0.02`; empty where the part has its own category alone, or next to nothing else."""
    others = [
        f"{words.moment(category)} {words.gib(by_category.get(category, 0))}"
        for category in part.categories[1:]
        if by_category.get(category, 0) >= SHOWN_BYTES
    ]
    return f"of which {', '.join(others)}" if others else ""
