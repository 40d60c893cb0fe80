"""Evaluation between training steps: one forward without gradients, and the logits that are kept of earlier batches.

Planned is transformers' Trainer (trainer.py, `evaluation_loop` and `prediction_step`): after the optimizer's step, in
evaluation mode, under `torch.no_grad`, with labels. Where metrics are computed, logits and labels of every batch stay
on the card until the loop ends or `eval_accumulation_steps` batches are gathered; each new batch is joined to them by
`torch.cat` (trainer_pt_utils.py, `EvalLoopContainer`), so that at the last one all of them exist twice. The forward of
a batch runs while the loop's variables still hold the previous one's. Mixed precision's outputs are cast to fp32
(accelerate, `convert_outputs_to_fp32`).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate
from math import prod
from typing import NamedTuple

from estimators.analytic.cards import CardTraits
from estimators.analytic.shadow.play import Played, play_forward
from estimators.analytic.shadow.structure import Structure
from estimators.analytic.shadow.tape import MIDDLE
from estimators.analytic.structure import structure_of, symbol_sizes
from estimators.analytic.tensors import rounded
from estimators.workload import Batch, Workload

Categories = dict[str, int]
LABEL_BYTES = 8


class Evaluation(NamedTuple):
    """The largest moment of an evaluation, without what lives around it."""

    total_bytes: int
    by_category: Categories


def evaluated(workload: Workload) -> Workload:
    """The workload whose forward an evaluation runs.

    The chunked loss stays where no logits are wanted; dropout and checkpointing belong to training.
    """
    method = replace(workload.method, lora_dropout=0.0)
    return replace(
        workload,
        method=method,
        batch=Batch(
            micro_batch_size=workload.eval_batch or 1,
            sequence_length=workload.eval_seq or workload.batch.sequence_length,
        ),
        loss="full" if workload.eval_keep else workload.loss,
        checkpointing="none",
        dropout=0.0,
        keep_outputs=False,
    )


def evaluation_of(workload: Workload, kernel: str, card: CardTraits | None = None) -> Evaluation:
    """What evaluation adds to weights, buffers, states and workspaces, at its largest.

    Args:
        workload: a run with evaluation between its steps.
        kernel: the attention kernel that runs.
        card: what it runs on.
    """
    run = evaluated(workload)
    structure, sizes = structure_of(run, kernel, card), symbol_sizes(run, card)
    return _largest(
        replace(structure, update_in_backward=False),
        tuple(sorted(sizes.items())),
        run.model.num_hidden_layers,
        workload.eval_keep or 0,
    )


@lru_cache(maxsize=4096)
def _largest(structure: Structure, symbols: tuple[tuple[str, int], ...], layers: int, kept: int) -> Evaluation:
    sizes = dict(symbols)
    played, logits, labels = play_forward(structure)
    forward = _forward(played, sizes, layers)
    if not kept:
        return forward
    itemsize = 4 if structure.autocast else structure.itemsize
    batch_bytes = itemsize * prod(sizes[dim] for dim in logits)
    label_bytes = LABEL_BYTES * prod(sizes[dim] for dim in labels)
    before = kept - 1
    held = {
        "logits": rounded(before * batch_bytes) + (before > 1) * rounded(batch_bytes),
        "inputs": rounded(before * label_bytes) + (before > 1) * rounded(label_bytes),
    }
    running = Evaluation(
        forward.total_bytes + sum(held.values()),
        dict(Counter(forward.by_category) + Counter(held)),
    )
    joined = {
        "logits": rounded(before * batch_bytes) + rounded(batch_bytes) + rounded(kept * batch_bytes),
        "inputs": rounded(before * label_bytes) + rounded(label_bytes),
    }
    joining = Evaluation(sum(joined.values()), joined)
    return max(running, joining, key=lambda moment: moment.total_bytes)


def played_evaluation(workload: Workload, kernel: str, card: CardTraits | None = None) -> Played:
    """The forward of one batch of an evaluation."""
    return play_forward(replace(structure_of(evaluated(workload), kernel, card), update_in_backward=False))[0]


class Made(NamedTuple):
    """A tensor that an evaluation makes."""

    name: str
    formula: str
    nbytes: int
    category: str
    live_bytes: int
    """What the evaluation has made and not let go of before."""
    layer: int | None
    """Where the model has several layers."""


def made_by(workload: Workload, kernel: str, card: CardTraits | None = None) -> Iterator[Made]:
    """Every tensor of the last batch's forward, and the logits that are joined afterwards."""
    run, kept = evaluated(workload), workload.eval_keep or 0
    structure, symbols = structure_of(run, kernel, card), symbol_sizes(run, card)
    played, logits, _ = play_forward(replace(structure, update_in_backward=False))
    itemsize = 4 if structure.autocast else structure.itemsize
    batch_bytes = itemsize * prod(symbols[dim] for dim in logits)
    before = rounded(max(kept - 1, 0) * batch_bytes) + (kept > 2) * rounded(batch_bytes)
    changes, order = course_of_forward(played, symbols, run.model.num_hidden_layers)
    marks = {place: detail for place, label, detail in played.marks if label == "forward of layer"}
    layer, total = -1, before
    for place in order:
        detail = marks.get(place, "")
        layer = -1 if detail == "end" else layer + 1 if detail else layer
        if played.events[place] > 0:
            kind = played.kinds[played.events[place] - 1]
            nbytes = kind.size.itemsize * prod(symbols[dim] for dim in kind.size.dims)
            yield Made(kind.name, kind.size.formula, nbytes, kind.category, total, layer if layer >= 0 else None)
        total += changes[place]
    if kept > 1:
        joined = rounded((kept - 1) * batch_bytes) + rounded(batch_bytes)
        yield Made(f"logits of {kept} batches, joined", "", kept * batch_bytes, "logits", joined, None)


def course_of_forward(played: Played, symbols: dict[str, int], layers: int) -> tuple[list[int], list[int]]:
    """What each played event adds to live bytes, and the events in order, the middle layer's for each it stands for."""
    marks = {detail: position for position, label, detail in played.marks if label == "forward of layer"}
    numbered = [int(detail) for detail in marks if detail.isdigit()]
    repeats = layers - len(numbered) + 1 if layers > len(numbered) else 1
    sizes = [_bytes(kind.size.dims, kind.size.itemsize, symbols) for kind in played.kinds]
    sizes = [
        nbytes * repeats if kind.in_every_middle_layer else nbytes
        for nbytes, kind in zip(sizes, played.kinds, strict=True)
    ]
    changes = [sizes[code - 1] if code > 0 else -sizes[-code - 1] for code in played.events]
    if repeats > 1:
        begin, end = marks[str(MIDDLE)], marks[str(MIDDLE + 1)]
        order = [*range(begin), *[*range(begin, end)] * repeats, *range(end, len(changes))]
    else:
        order = [*range(len(changes))]
    return changes, order


def _forward(played: Played, symbols: dict[str, int], layers: int) -> Evaluation:
    """The largest point of the forward; the played middle layer stands for all between the first and the last."""
    changes, order = course_of_forward(played, symbols, layers)
    values = list(accumulate(changes[place] for place in order))
    top = values.index(max(values))
    found: Categories = {}
    for place in order[: top + 1]:
        category = played.kinds[abs(played.events[place]) - 1].category
        found[category] = found.get(category, 0) + changes[place]
    return Evaluation(values[top], {category: nbytes for category, nbytes in found.items() if nbytes})


def _bytes(dims: tuple[str, ...], itemsize: int, symbols: dict[str, int]) -> int:
    return rounded(prod(symbols[dim] for dim in dims) * itemsize)
