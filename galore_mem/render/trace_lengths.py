"""Lengths that vary from step to step, for a terminal: what was drawn, the range over orders, and what narrows it."""

from galore_mem.answers.lengths import Variation
from galore_mem.render import words
from galore_mem.render.flow import flow
from galore_mem.render.text import Text

LABEL = 30


def length_lines(found: Variation | None, width: int) -> list[Text]:
    """An empty line first; no lines where all steps have one length."""
    if found is None:
        return []
    spread, steps = found.course.distribution(), found.course.lengths
    drawn = (
        f"lengths that vary: {len(steps)} steps of {spread['shortest']:,} to {spread['longest']:,} tokens, "
        f"{spread['distinct']} lengths, median {spread['median']:,g}, seed {found.course.seed}; "
        f"{len(found.orders)} orders"
    )
    lines = [Text(), *flow(Text(drawn, style="dim"), width, indent=2)]
    lines.append(Text(f"{'reserved peak':<{LABEL}}{'least':>8}{'most':>8}", style="dim"))
    for row in (found.reserved, found.equal, *found.remedies):
        least, most = words.gib(row.low_bytes), words.gib(row.high_bytes)
        line = Text(f"{row.name:<{LABEL}}{least:>8}{most:>8}")
        lines += flow(line.append(f"  {row.reason}", style="dim"), width, indent=LABEL + 18)
    return lines
