"""Which of the repeated layers' storages die in a neighbour of the layer that made them.

The played middle layer stands for many. What it lets go of but did not make came, as played, from the first layer
(forward, and backward's activations) or from the last one (backward's gradients). That is true of one repetition only;
in every other the storage was made by the neighbouring repetition, at the counterpart of the played position.
"""

from dataclasses import dataclass
from functools import lru_cache

from estimators.analytic.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOn:
    """A death, in a repeated layer, of what another layer made."""

    counterpart: int
    """Position at which the neighbouring repetition made its own."""
    by_last: bool
    """The last repetition meets the played storage; otherwise the first one does."""


@lru_cache(maxsize=512)
def handed_on(layout: Layout) -> dict[int, HandedOn]:
    """By the position of the death; only where a counterpart is found."""
    events, births, names = layout.played.events, layout.played.births, layout.played.kinds
    passes = _passes(layout)
    made: dict[tuple[int, object], list[int]] = {}
    for position, code in enumerate(events):
        if code > 0:
            kind = names[code - 1]
            made.setdefault((passes[position][0], (kind.size, kind.category, kind.name)), []).append(position)
    blocks = {stretch.block: passes[stretch.start][0] for stretch in layout.stretches if stretch.block}
    before = {block: blocks.get(block - 1) for block in blocks}
    found: dict[int, HandedOn] = {}
    for stretch in layout.stretches:
        for position in range(stretch.start, stretch.stop) if stretch.block else ():
            code, birth = events[position], births[position]
            own, is_backward = passes[position]
            source, was_backward = passes[birth]
            if code > 0 or source in (own, OUTSIDE_PASS) or names[-code - 1].in_every_middle_layer:
                continue
            crosses = is_backward and not was_backward
            neighbour = before[stretch.block] if crosses else own
            kind = names[-code - 1]
            key = (kind.size, kind.category, kind.name)
            theirs, ours = made[source, key], made.get((neighbour, key), []) if neighbour is not None else []
            place = len(theirs) - theirs.index(birth)
            if place <= len(ours):
                found[position] = HandedOn(counterpart=ours[-place], by_last=crosses)
    return found


OUTSIDE_PASS = 0
"""The number of everything that is in no layer."""


def _passes(layout: Layout) -> list[tuple[int, bool]]:
    """The pass through a layer that each event belongs to, numbered, and whether it is backward."""
    played = layout.played
    found: list[tuple[int, bool]] = [(OUTSIDE_PASS, False)] * len(played.events)
    numbers: dict[tuple[str, str, str], int] = {}
    micro_batch, current, is_backward, start = "", OUTSIDE_PASS, False, 0
    for position, label, detail in (*played.marks, (len(played.events), "end", "")):
        if label == "gradient":
            continue
        found[start:position] = [(current, is_backward)] * (position - start)
        start = position
        if label == "micro-batch":
            micro_batch = detail
        is_backward = label == "backward" or (is_backward and label != "micro-batch")
        if label in ("forward of layer", "backward of layer") and detail.isdigit():
            current = numbers.setdefault((micro_batch, label, detail), len(numbers) + 1)
        else:
            current = OUTSIDE_PASS
    return found
