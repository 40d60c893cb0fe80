"""Every configuration that a search looks at."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product, takewhile
from typing import Any, Literal

from estimators.analytic.bounds import Reach
from estimators.analytic.estimate import Reaches
from estimators.checks import check_data_parallel
from estimators.fidelity import Fidelity, fidelity
from estimators.verdict import last_not_above, max_micro_batch_size, max_sequence_length
from estimators.work import Working
from estimators.workload import (
    METHODS,
    Attention,
    Batch,
    Method,
    OptimizerKernel,
    Update,
    Workload,
    in_batch,
    resized,
)
from galore_mem.answers.kernels import kernels_worth_a_look
from galore_mem.answers.names import Card
from galore_mem.answers.round_lengths import least_length, round_length
from galore_mem.answers.wishes import DEFAULT_SEQUENCE, Wishes, usual_ranks
from profiles.errors import InputError
from profiles.shapes import ModelShape


class Form:
    """One configuration on one card, whatever its batch.

    Args:
        workload: the configuration, in any batch.
        card: what it is looked at on.

    Raises:
        InputError: its `target_modules` match nothing.
    """

    def __init__(self, workload: Workload, card: Card) -> None:
        self.workload = workload
        self.card = card
        self.usable_bytes = card.gpu.usable_bytes - card.other_use_bytes
        """What the card leaves."""
        self.fidelity = fidelity(workload.model, workload.method)
        method = workload.method
        self.group = method.name, method.rank, method.update
        """Method, rank and update: what a person takes it for, whatever saves memory besides."""
        extras = workload.checkpointing, workload.loss, workload.attention, workload.gradient_as_bucket_view
        self.kind: tuple[object, ...] = (method.update, method.optimizer_kernel, *extras)
        """What saves memory, whatever the method."""
        self.key = *self.group, *self.kind, workload.allocator_settings
        """What sets it apart from the other forms of a search."""
        self.reaches = Reaches(workload, card.gpu)
        self._working = Working(workload)

    def under(self, allocator_settings: str) -> "Form":
        """The same with other settings of the allocator, of which only a replay can tell what they change."""
        form = copy(self)
        form.workload = replace(self.workload, allocator_settings=allocator_settings)
        form.key = *self.key[:-1], allocator_settings
        return form

    def option(self, batch: Batch) -> "Option":
        """The configuration in one batch.

        Raises:
            InputError: it cannot run on the card.
        """
        return Option(form=self, batch=batch, reach=self.reaches.of(batch), relative_work=self._working.relative(batch))


@dataclass(frozen=True, kw_only=True)
class Option:
    """One configuration in one batch on one card: what it takes, and what it costs."""

    form: Form
    batch: Batch
    reach: Reach
    relative_work: float
    """Matrix-product work per token over that of plain full-rank training."""
    is_replayed: bool = False
    """Its reserved memory and bound come from the allocator's replica, not from the closed form."""

    @cached_property
    def workload(self) -> Workload:
        """The whole configuration."""
        return in_batch(self.form.workload, self.batch)

    @property
    def key(self) -> tuple[object, ...]:
        """What sets it apart from the other options of a search."""
        return self.form.key, self.batch

    @property
    def card(self) -> Card:
        """What it is looked at on."""
        return self.form.card

    @property
    def fidelity(self) -> Fidelity:
        """How near full-rank training it is."""
        return self.form.fidelity

    @property
    def usable_bytes(self) -> int:
        """What the card leaves."""
        return self.form.usable_bytes

    @property
    def missing_bytes(self) -> int:
        """How far the upper bound is above the card; negative where it fits."""
        return self.reach.upper_bytes - self.form.usable_bytes

    @property
    def least_missing_bytes(self) -> int:
        """The same if nothing were lost between blocks and segments: where it is positive no replay can help."""
        return self.missing_bytes - self.reach.loss_bytes

    @property
    def surely_missing_bytes(self) -> int:
        """How far it is sure to miss: as replayed, or else if nothing were lost; negative where it may fit."""
        return self.missing_bytes if self.is_replayed else self.least_missing_bytes

    @property
    def told_missing_bytes(self) -> int:
        """What a person is told of a miss: what is sure to be missing, or the bound's share where nothing is sure."""
        sure = self.surely_missing_bytes
        return sure if sure > 0 else self.missing_bytes

    @property
    def miss_is(self) -> Literal["", "or more", "at worst"]:
        """How sure `told_missing_bytes` is; nothing to add where it was replayed."""
        if self.is_replayed:
            return ""
        return "or more" if self.least_missing_bytes > 0 else "at worst"

    def to_dict(self) -> dict[str, Any]:
        """An entry of `front` in the JSON output."""
        return {
            "workload": self.workload.to_dict(),
            "gpu": self.card.gpu.name,
            "peak_live_bytes": self.reach.live_bytes,
            "peak_reserved_bytes": self.reach.reserved_bytes,
            "process_bytes": self.reach.process_bytes,
            "upper_bytes": self.reach.upper_bytes,
            "headroom_bytes": -self.missing_bytes,
            "replayed": self.is_replayed,
            "relative_work": round(self.relative_work, 4),
            "fidelity": {
                "kind": self.fidelity.kind,
                "share": round(self.fidelity.share, 6),
                "states": self.fidelity.states,
            },
        }


def option_of(workload: Workload, card: Card) -> Option:
    """One configuration looked at.

    Raises:
        InputError: the workload cannot run on the card.
    """
    return Form(workload, card).option(workload.batch)


def forms(
    model: ModelShape, wishes: Wishes, methods: Sequence[str], attentions: Sequence[Attention] = ("auto",)
) -> Iterator[Workload]:
    """Configurations apart from their batch, which is one sequence here.

    Args:
        model: what is trained.
        wishes: what is asked.
        methods: to choose from.
        attentions: kernels to choose from.
    """
    for name in methods:
        ways = (wishes.ranks(name, model), wishes.updates(name), wishes.losses(model), wishes.checkpointings)
        besides = (wishes.bucket_views, attentions, wishes.optimizer_kernels(name))
        for rank, update, loss, checkpointing, views, attention, kernel in product(*ways, *besides):
            if wishes.objective == "rank" and METHODS[name].parameterisation != "galore":
                continue
            if kernel == "fused" and update == "per-layer":  # of one parameter at a time scratch does not matter
                continue
            yield Workload(
                model=model,
                method=_method(name, rank, update, wishes, kernel),
                clip=wishes.trainer and update == "whole",
                zero_grad="end" if wishes.trainer else "start",
                precision=wishes.precision,
                batch=Batch(micro_batch_size=wishes.batch or 1, sequence_length=wishes.seq or DEFAULT_SEQUENCE),
                attention=attention,
                checkpointing=checkpointing,
                loss=loss,
                padding=wishes.padding,
                data_parallel=wishes.data_parallel,
                gradient_as_bucket_view=views,
                allocator_settings=wishes.alloc_conf or "",
            )


def _method(name: str, rank: int | None, update: Update, wishes: Wishes, kernel: OptimizerKernel) -> Method:
    kind = METHODS[name].parameterisation
    words: dict[str, Any] = {"optimizer_kernel": kernel}
    if kind != "full":
        words["target_modules"] = wishes.target_modules
    if kind == "galore":
        words |= {"proj_type": wishes.proj_type, "implementation": wishes.implementation_asked}
    if wishes.trainer:
        words |= _TRAINERS.get((METHODS[name].optimizer, kind != "galore"), {})
    return Method(name=name, rank=rank, update=update, **words)


_TRAINERS: dict[tuple[str, bool], dict[str, Any]] = {
    ("adamw-8bit", True): {"embedding_optim_bits": 32},
}
"""How transformers' Trainer makes optimizers, by family and whether GaLore is out of the game: it keeps bitsandbytes'
states of embeddings in 32 bits."""


class Candidates:
    """The forms of a search on one card, each in the batches that are worth looking at.

    Args:
        model: what is trained.
        wishes: what is asked.
        card: what it is trained on.
    """

    def __init__(self, model: ModelShape, wishes: Wishes, card: Card) -> None:
        self._model = model
        self._wishes = wishes
        self.card = card
        self._found: dict[tuple[object, ...], int] = {}
        """What was found for forms that differ in their methods only: others of that kind will not be far."""
        self.refusals: list[InputError] = []
        """Why forms cannot run on the card."""

    def of(self, methods: Sequence[str]) -> Iterator[Option]:
        """Every form of some methods in the batches that fit the card, or in the smallest one where none does."""
        found = self._forms(methods)
        for form in self._highest_ranks(found) if self._wishes.objective == "rank" else found:
            try:
                yield from map(form.option, self._batches(form))
            except InputError as refusal:
                self.refusals.append(refusal)

    @cached_property
    def _attentions(self) -> tuple[Attention, ...]:
        """Kernels to look at; a short run of any method shows which."""
        if self._wishes.attention is not None:
            return (self._wishes.attention,)
        probe = next(forms(self._model, replace(self._wishes, objective="fidelity", methods=("sgd",)), ("sgd",)), None)
        if probe is not None:
            with suppress(InputError):
                return kernels_worth_a_look(probe, self.card.gpu)
        return ("auto",)

    def _forms(self, methods: Sequence[str]) -> Iterator[Form]:
        """Those that the card can run: not a kernel that it lacks, or an update that cannot accumulate."""
        for workload in forms(self._model, self._wishes, methods, self._attentions):
            try:
                check_data_parallel(workload)
                form = Form(workload, self.card)
            except InputError as refusal:
                self.refusals.append(refusal)
            else:
                yield form

    def _highest_ranks(self, found: Iterable[Form]) -> Iterator[Form]:
        """The usual shares of the width, and the highest ranks with which a form of the same method fits or might."""
        ladders: dict[Workload, list[Form]] = {}
        for form in found:
            workload = form.workload
            ladders.setdefault(replace(workload, method=replace(workload.method, rank=1)), []).append(form)
        worth: dict[Method, set[int | None]] = {}
        for key, ladder in ladders.items():
            with suppress(InputError):
                ends = self._highest(ladder, "missing_bytes"), self._highest(ladder, "least_missing_bytes")
                ranks = worth.setdefault(key.method, set(usual_ranks(self._model)))
                ranks.update(form.workload.method.rank for form in ladder[ends[0] : ends[1] + 1])
        for key, ladder in ladders.items():
            yield from (form for form in ladder if form.workload.method.rank in worth.get(key.method, ()))

    def _highest(self, ladder: Sequence[Form], missing: Literal["missing_bytes", "least_missing_bytes"]) -> int:
        """The place of the highest rank of which nothing is missing in the smallest batch; the lowest if none is."""
        batch = self._smallest(ladder[0].workload)
        found = last_not_above(lambda place: getattr(ladder[place].option(batch), missing), 0, len(ladder) - 1)
        return max(found, 0)

    def _smallest(self, workload: Workload) -> Batch:
        """The batch that takes the least, of those that were asked for."""
        if not self._wishes.global_batch:
            return workload.batch
        return next(iter(_divisions(workload, self._wishes)), workload.batch)

    @staticmethod
    def _may_fit(form: Form, batch: Batch) -> bool:
        reach = form.reaches.of(batch)
        return reach.upper_bytes - reach.loss_bytes <= form.usable_bytes

    def _batches(self, form: Form) -> list[Batch]:
        wishes, workload, reaches = self._wishes, form.workload, form.reaches
        gpu, usable, batch = form.card.gpu, form.usable_bytes, form.workload.batch
        kind = form.kind
        near = self._found.get(kind) or next(reversed(self._found.values()), 0)
        if wishes.global_batch:
            divisions = _divisions(workload, wishes)
            if not divisions:
                return []
            last = self._found[kind] = last_not_above(
                lambda place: reaches.of(divisions[place]).upper_bytes - usable, 0, len(divisions) - 1, near
            )
            least = [division for division in divisions[:1] if division.micro_batch_size == (wishes.batch or 1)]
            larger = [*takewhile(partial(self._may_fit, form), divisions[last + 1 :])][::-1]
            return [*larger, *divisions[max(0, last - DIVISIONS + 1) : last + 1][::-1]] or least
        if wishes.objective == "sequence" and wishes.seq is None:
            longest = max_sequence_length(workload, gpu, usable, reaches=reaches, near=near)
            self._found[kind] = longest
            limit = max(workload.model.max_position_embeddings, batch.sequence_length)
            whole = longest if longest >= limit else round_length(longest)
            return [resized(batch, sequence_length=max(whole, least_length(workload.model)))]
        if wishes.batch:
            return [batch]
        largest = self._found[kind] = max_micro_batch_size(workload, gpu, usable, reaches=reaches, near=near)
        sizes = {2**power for power in range(largest.bit_length())} | {max(largest, 1)}
        return [resized(batch, micro_batch_size=size) for size in sorted(sizes)]


def options(model: ModelShape, wishes: Wishes, card: Card) -> Iterator[Option]:
    """Every form in the batches that fit the card, or in the smallest one where none does."""
    return Candidates(model, wishes, card).of(wishes.methods_asked)


def _divisions(form: Workload, wishes: Wishes) -> list[Batch]:
    """All divisions of one GPU's share of the global batch into micro-batches, the smallest first."""
    total = (wishes.global_batch or 1) // wishes.data_parallel
    sizes = [wishes.batch] if wishes.batch else [size for size in range(1, total + 1) if total % size == 0]
    if not can_accumulate(form.method):
        sizes = [size for size in sizes if size == total]
    return [replace(form.batch, micro_batch_size=size, gradient_accumulation_steps=total // size) for size in sizes]


def free_size(wishes: Wishes) -> Literal["micro_batch_size", "sequence_length"] | None:
    """What of the batch a search may choose."""
    if wishes.objective == "sequence" and wishes.seq is None:
        return "sequence_length"
    return None if wishes.batch or wishes.global_batch else "micro_batch_size"


DIVISIONS = 3
"""Of those that fit by their bound, the largest are looked at, and larger ones if a replay might show that they fit."""


def can_accumulate(method: Method) -> bool:
    """Whether accumulating is worth it: per-layer updates keep whole gradients for it, but for GaLore's."""
    if method.update == "whole":
        return True
    return method.parameterisation == "galore" and method.implementation == "galore-mem"
