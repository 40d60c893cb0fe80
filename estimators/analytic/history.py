"""A whole run as an allocator would see it: every allocation and free of loading, a first and a steady iteration.

Forward and backward are the played step with its middle layer unrolled; steps are walked with every tensor told apart.
Sizes and order are the closed form's, so that the allocator's replica makes of it nearly what it makes of a traced
history (docs/accuracy.md), without torch and in a fraction of a second.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from estimators.allocator.passages import Section
from estimators.allocator.replay import Event
from estimators.analytic.attention import attention_kernel
from estimators.analytic.buffers import buffers
from estimators.analytic.cards import card_of
from estimators.analytic.course import whole_layout_of
from estimators.analytic.data_parallel import Buckets, broadcast_copies, buckets_of
from estimators.analytic.evaluation_history import write_evaluation
from estimators.analytic.families import family_of
from estimators.analytic.history_ledger import Ledger
from estimators.analytic.resume_history import write_resume
from estimators.analytic.script import Backward, Completed, Product, Script, script_of
from estimators.analytic.shadow.loss import PLAYED_PIECES
from estimators.analytic.states import master_weights
from estimators.analytic.step_history import StepWriter, in_model_order
from estimators.analytic.stepping import stepping_of
from estimators.analytic.structure import loss_pieces
from estimators.workload import EmptyCache, Workload
from profiles.gpus import SMALL_WORKSPACE_BYTES, Gpu

MICRO_BATCHES = 3
"""Written of a longer accumulation: each one after the second finds the blocks that the one before has left.

Of a per-layer update's, one between the first and the last."""


class History(NamedTuple):
    """A run in numbers."""

    codes: list[int]
    """A block's number for an allocation, its negative for a free, 0 where the cache is emptied."""
    sizes: list[int]
    """Bytes asked for, by the block's number; there is no block 0."""
    sections: list[Section]
    """Of the codes, in order, which a replay under default settings may pass over."""

    def events(self) -> list[Event]:
        """The same for `estimators.allocator.replay`."""
        sizes = self.sizes
        return [
            ("alloc", code, sizes[code], 0, 0)
            if code > 0
            else ("free", -code, 0, 0, 0)
            if code
            else ("empty_cache", 0, 0, 0, 0)
            for code in self.codes
        ]


def history_of(workload: Workload, gpu: Gpu | None = None) -> list[Event]:
    """As `written_history`, event by event."""
    return written_history(workload, gpu).events()


def written_history(workload: Workload, gpu: Gpu | None = None) -> History:
    """Every allocation and free, in order; the second iteration refreshes.

    Args:
        workload: the run.
        gpu: the card, which decides the attention kernel and the sizes of workspaces.

    Raises:
        InputError: the workload cannot run on the card, or its history cannot be written down.
    """
    kernel, card = attention_kernel(workload, gpu), card_of(gpu)
    layout, sizes = whole_layout_of(workload, kernel, card)
    groups = stepping_of(workload.model, workload.method, workload.precision).groups
    ledger, order = Ledger(), list(in_model_order(groups))
    weights: dict[str, list[int]] = {}
    for group, _ in order:
        weights.setdefault(group.name, []).append(ledger.alloc(group.nbytes))
    for buffer in buffers(workload.model):
        ledger.alloc(buffer.nbytes)
    for group, _ in order:
        for copy in master_weights(group, workload.method):
            ledger.alloc(copy.nbytes)
    micro_batches = min(workload.batch.gradient_accumulation_steps, MICRO_BATCHES)
    iterations = _Iterations(
        ledger=ledger,
        script=script_of(
            layout,
            layout.repetitions,
            micro_batches,
            max(loss_pieces(workload) - PLAYED_PIECES, 0),
            _linears(workload),
        ),
        sizes=sizes,
        steps=StepWriter(ledger, groups, workload.method, weights),
        workspace_bytes=gpu.cublas_workspace_recent_bytes if gpu is not None else SMALL_WORKSPACE_BYTES,
        per_layer=workload.method.update == "per-layer",
        empties=workload.empty_cache,
        keeps_gradients=workload.zero_grad == "start" and (bool(workload.eval_batch) or workload.empty_cache == "step"),
        evaluate=partial(write_evaluation, ledger, workload, kernel, card) if workload.eval_batch else None,
    )
    resumed = workload.resume != "none"
    if resumed:
        write_resume(ledger, iterations.steps, workload, groups)
    shared = _Shared(ledger, workload, buckets_of(workload, layout))
    for first in (True, False):
        shared.begin(first=first)
        iterations.write(first=first and not resumed)
    return History(ledger.codes, ledger.sizes, ledger.sections)


def _linears(workload: Workload) -> tuple[str, ...]:
    """Names of linear layers' modules; the head is no one's first."""
    weights = family_of(workload.model.model_type).weights(workload.model)
    return tuple(dict.fromkeys(weight.name.rsplit(".", 2)[-2] for weight in weights if weight.role == "linear"))


class _Shared:
    """What data-parallel training makes: copies of weights that are broadcast, then buckets, made anew once."""

    def __init__(self, ledger: Ledger, workload: Workload, buckets: Buckets) -> None:
        self._ledger = ledger
        self._workload = workload
        self._buckets = buckets
        self._numbers: list[int] = []

    def begin(self, *, first: bool) -> None:
        """An iteration starts."""
        if first and self._workload.data_parallel > 1:
            self._broadcast()
        for number in self._numbers:
            self._ledger.free(number)
        self._numbers = list(map(self._ledger.alloc, self._buckets.first if first else self._buckets.rebuilt))

    def _broadcast(self) -> None:
        """While a copy is made, the one before still lives."""
        before = 0
        for nbytes in broadcast_copies(self._workload.model, self._workload.method, self._workload.precision):
            now = self._ledger.alloc(nbytes) if nbytes else 0
            if before:
                self._ledger.free(before)
            before = now
        if before:
            self._ledger.free(before)


@dataclass(slots=True, kw_only=True)
class _Iterations:
    """Plays the script into the ledger, with its steps."""

    ledger: Ledger
    script: Script
    sizes: list[int]
    steps: StepWriter
    workspace_bytes: int
    per_layer: bool
    empties: EmptyCache
    """Where the cache is emptied."""
    gathered: dict[str, list[int]] = field(default_factory=dict)
    """What the first of several passes of a per-layer update has left of gradients, in the order of backward."""
    keeps_gradients: bool = False
    """An evaluation, or an emptied cache, finds the gradients of the step before it."""
    evaluate: Callable[[], None] | None = None
    """Writes an evaluation; None where none runs."""
    workspaces: int = 0
    """CuBLAS's: taken at the first matrix product of forward's and of backward's thread, once and for good."""

    def write(self, *, first: bool) -> None:
        script, sizes = self.script, self.sizes
        blocks = self.ledger.promise([sizes[kind] for kind in script.kinds])
        before = blocks.before
        gradients: dict[str, list[int]] = {}
        self.gathered.clear()
        empty = {number for number, kind in enumerate(script.kinds, 1) if not sizes[kind]} if 0 in sizes else set()
        """Partial sums of few rows."""
        for events, cue in script.parts:
            if empty:
                events = [code for code in events if abs(code) not in empty]
            blocks.play(events)
            if isinstance(cue, Product):
                self._take_workspace(cue.threads)
            elif isinstance(cue, Backward):
                if self.empties == "backward":
                    self.ledger.empty_cache()
            elif cue is None:
                continue
            elif not self.per_layer:
                if cue.part in ("only", "closing"):
                    gradients.setdefault(cue.name, []).append(before + cue.storage)
            elif cue.part != "only":
                blocks.lose(cue.storage)
                self._gather(cue, before + cue.storage, first=first)
            elif self.steps.single(cue.name, before + cue.storage, cue.layer, first=first):
                blocks.lose(cue.storage)
        if not self.per_layer:
            self.steps.whole(gradients, first=first)
        for number in self.steps.freed:
            blocks.lose(number - before)
        stays = {number for own in gradients.values() for number in own} if self.keeps_gradients else set()
        blocks.play([-number for number in script.left if before + number not in stays])
        if not stays:
            self.steps.end()
        if self.empties == "step":
            self.ledger.empty_cache()
        if self.evaluate is not None:
            self.evaluate()
        if stays:
            blocks.play([-number for number in script.left if before + number in stays])
            self.steps.end()

    def _gather(self, cue: Completed, gradient: int, *, first: bool) -> None:
        """One of several passes: the first keeps the gradient or its projection, the last one steps the sum."""
        kept, is_last = self.gathered.setdefault(cue.name, []), cue.part == "closing"
        if self.steps.projects(cue.name):
            if is_last:
                self.steps.finish(cue.name, (gradient, kept[-1 - cue.layer]), first=first)
            else:
                left = self.steps.gather(cue.name, gradient, opening=cue.part == "opening", first=first)
                kept += [left] if left else []
        elif cue.part == "opening":
            kept.append(gradient)
        else:
            self.ledger.free(gradient)
            total = kept[-1 - cue.layer]
            if is_last and not self.steps.single(cue.name, total, cue.layer, first=first):
                self.ledger.free(total)

    def _take_workspace(self, threads: int) -> None:
        if self.workspaces < threads:
            self.workspaces = threads
            self.ledger.alloc(self.workspace_bytes)
