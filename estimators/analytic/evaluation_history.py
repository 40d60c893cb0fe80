"""An evaluation as an allocator would see it: forwards of batches, and the logits that are joined between them.

As in `evaluation`: where nothing is kept two batches show all there is; where logits are, the first two and the last
run, and those between are as large.
"""

from math import prod
from typing import NamedTuple

from estimators.analytic.cards import CardTraits
from estimators.analytic.evaluation import LABEL_BYTES, course_of_forward, evaluated, played_evaluation
from estimators.analytic.history_ledger import Ledger
from estimators.analytic.shadow.play import Played
from estimators.analytic.structure import symbol_sizes
from estimators.workload import Workload

_LOSS_ONLY_BATCHES = 2


class _Forward(NamedTuple):
    """A forward without gradients, its storages numbered from 1 on."""

    codes: list[int]
    """A storage's number for its birth, the negative of that for its death."""
    sizes: list[int]
    left: list[int]
    """What lives at the end."""
    logits: int
    """The storage that is kept where logits are; 0 where there is none."""


def write_evaluation(ledger: Ledger, workload: Workload, kernel: str, card: CardTraits | None = None) -> None:
    """All batches of an evaluation.

    Args:
        ledger: where to.
        workload: a run with evaluation.
        kernel: the attention kernel that runs.
        card: what it runs on.
    """
    run, kept = evaluated(workload), workload.eval_keep or 0
    forward = _forward_of(workload, kernel, card)
    labels_bytes = LABEL_BYTES * run.batch.tokens
    held: list[int] = []
    """The last batch's logits and labels, in the loop's variables."""
    joined: list[int] = []
    """Those of all batches, where they are not the same."""
    for number in range(kept or _LOSS_ONLY_BATCHES):
        if 1 < number < kept - 1:
            made = [ledger.alloc(forward.sizes[forward.logits - 1]), ledger.alloc(labels_bytes)]
        else:
            blocks = ledger.promise(forward.sizes)
            if kept:
                blocks.lose(forward.logits)
            for codes in (forward.codes, [-storage for storage in forward.left]):
                blocks.play(codes)
            made = [blocks.before + forward.logits, ledger.alloc(labels_bytes)] if kept else []
        if number == 0:
            held = made
            continue
        for block in held if joined else ():
            ledger.free(block)
        older, joined = joined or held, []
        for place, block in enumerate(older):
            size = (number + 1) * (labels_bytes if place else forward.sizes[forward.logits - 1])
            joined.append(ledger.alloc(size))
            ledger.free(block)
        held = made
    for block in (*held, *joined):
        ledger.free(block)


def _forward_of(workload: Workload, kernel: str, card: CardTraits | None) -> _Forward:
    played = played_evaluation(workload, kernel, card)
    run = evaluated(workload)
    symbols = symbol_sizes(run, card)
    _, order = course_of_forward(played, symbols, run.model.num_hidden_layers)
    codes: list[int] = []
    kinds: list[int] = []
    alive: dict[int, dict[int, int]] = {}
    """Living storages by their kind, oldest first, each with the position of its birth."""
    names = [(kind.size, kind.category, kind.name) for kind in played.kinds]
    same = {name: index for index, name in enumerate(names)}
    for place in order:
        code, birth = played.events[place], played.births[place]
        kind = abs(code) - 1
        own = alive.setdefault(same[names[kind]], {})
        if code > 0:
            kinds.append(kind)
            own[len(kinds)] = place
            codes.append(len(kinds))
            continue
        dying = [storage for storage, born in own.items() if born == birth] or [next(iter(own))]
        for storage in dying if played.kinds[kind].in_every_middle_layer else dying[-1:]:
            del own[storage]
            codes.append(-storage)
    made = [played.kinds[kind].size for kind in kinds]
    sizes = [size.itemsize * prod(symbols[dim] for dim in size.dims) for size in made]
    left = sorted(storage for own in alive.values() for storage in own)
    return _Forward(codes, sizes, left, _logits(played, kinds))


def _logits(played: Played, kinds: list[int]) -> int:
    names = [played.kinds[kind].name for kind in kinds]
    cast = [place for place, name in enumerate(names, 1) if name.endswith("logits in fp32 for the loop")]
    return (cast or [place for place, name in enumerate(names, 1) if name.endswith("lm_head.logits")] or [0])[-1]
