"""What a person wants of a training run before its configuration is chosen."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal, get_args

from estimators.analytic.families import takes_chunked_loss
from estimators.workload import (
    METHODS,
    Attention,
    Checkpointing,
    Implementation,
    Loss,
    OptimizerKernel,
    Precision,
    ProjType,
    Update,
    method_traits,
)
from galore_mem.answers.settings import LARGEST_COUNT, means_something
from profiles.errors import InputError
from profiles.shapes import ModelShape

Objective = Literal["fidelity", "batch", "sequence", "rank"]
DEFAULT_SEQUENCE = 256
"""The GaLore paper's."""
ENOUGH = 4
"""Hidden size over rank from which more rank is not looked for: the paper's choice at 7B, 0.3 % behind 8-bit Adam."""
LORA_RANK = 16
ONLY_NAMED = ("relora", "low-rank", "qlora")
"""Looked at only where --method or a file of another tool names them: no library runs the first two, and the third
trains beside other weights than the model's, which nobody should be handed unasked."""
NOT_IN_TRAINER = ("sgd-momentum", "relora", "low-rank", "offload-adamw")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """Constraints of a search; None leaves a setting free."""

    objective: Objective = "fidelity"
    methods: tuple[str, ...] = ()
    """Methods to choose from; all that keep their states on the card unless given."""
    update: Update | None = None
    rank: int | None = None
    min_rank: int | None = None
    proj_type: ProjType = "std"
    target_modules: tuple[str, ...] = ("all-linear",)
    implementation: Implementation = "galore-mem"
    batch: int | None = None
    """Sequences in a micro-batch."""
    seq: int | None = None
    """Tokens in a sequence; 256 unless given or looked for."""
    global_batch: int | None = None
    """Sequences in one optimizer step; one micro-batch unless given."""
    precision: Precision = "bf16"
    checkpointing: Checkpointing | None = None
    attention: Attention | None = None
    loss: Loss | None = None
    padding: bool = False
    alloc_conf: str | None = None
    """The allocator's settings; unless given, the default ones, or expandable segments where those make more fit."""
    data_parallel: int = 1
    """GPUs under DistributedDataParallel, each with a copy of the model."""
    gradient_as_bucket_view: bool | None = None
    """Whether gradients lie in its buckets; free unless given."""
    trainer: bool = False
    """Only what transformers' Trainer runs: galore_torch, all logits at once, layer by layer only GaLore."""

    def __post_init__(self) -> None:
        """Refuse values that mean nothing, and wishes that contradict each other.

        Raises:
            InputError: names the option and what it accepts.
        """
        for name in self.methods:
            method_traits(name)
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise InputError(f"{_OPTIONS.get(name, _option(name))} {value!r} is not known", "", _choose(choices))
        for name in ("rank", "min_rank", "batch", "seq", "global_batch", "data_parallel"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"{_option(name)} {value!r} is not a positive whole number", "", "give 1 or more")
            if value is not None and value > LARGEST_COUNT:
                raise InputError(
                    f"{_option(name)} {value} is more than any run has", "", f"give {LARGEST_COUNT} or less"
                )
        self._agree()

    def _agree(self) -> None:
        looked_for = {"batch": "batch", "sequence": "seq", "rank": "rank"}.get(self.objective)
        if looked_for is not None and getattr(self, looked_for) is not None:
            option = _option(looked_for)
            raise InputError(
                f"--for {self.objective} looks for what {option} fixes", "", f"leave out {option} or --for"
            )
        if self.rank is not None and self.min_rank is not None and self.rank < self.min_rank:
            raise InputError(f"--rank {self.rank} is below --min-rank {self.min_rank}", "", "leave one of them out")
        if self.gradient_as_bucket_view is not None and self.data_parallel == 1:
            raise InputError(
                "--gradient-as-bucket-view is DistributedDataParallel's",
                "one GPU has no buckets",
                "add --data-parallel 2",
            )
        if self.data_parallel > 1:
            self._agree_with_copies()
        elif self.global_batch and self.batch and self.global_batch % self.batch:
            raise InputError(
                f"--global-batch {self.global_batch} is no multiple of --batch {self.batch}",
                "an optimizer step consumes whole micro-batches",
                "give a multiple, or leave --batch out",
            )
        if self.objective == "rank" and not any(
            METHODS[name].parameterisation == "galore" for name in self.methods_asked
        ):
            raise InputError(
                "--for rank looks for GaLore's rank", "none of the methods has one", "add --method galore-adamw-8bit"
            )

    def _agree_with_copies(self) -> None:
        gpus, at_once = self.data_parallel, self.data_parallel * (self.batch or 1)
        if self.global_batch and self.global_batch % at_once:
            raise InputError(
                f"--global-batch {self.global_batch} is no multiple of {at_once}, what {gpus} GPUs take at once",
                "an optimizer step consumes whole micro-batches, equally many on each GPU",
                "give a multiple",
            )
        if self.update == "per-layer":
            raise InputError(
                f"--update per-layer cannot run with --data-parallel {gpus}",
                "it steps each parameter before its gradient is averaged over the GPUs",
                "leave one of them out",
            )
        if any(METHODS[name].states_on == "host" for name in self.methods):
            raise InputError(
                f"--method offload-adamw cannot run with --data-parallel {gpus}",
                "it copies each gradient to the host before that is averaged over the GPUs",
                "leave one of them out",
            )

    def agree_with(self, model: ModelShape) -> None:
        """Refuse what the search would pass over without a word: a loss, or ranks, that the model has no place for.

        Raises:
            InputError: says what cannot be; of ranks, names the largest there is.
        """
        if self.loss == "chunked" and not takes_chunked_loss(model):
            raise InputError(
                "--loss chunked cannot run here", f"it is not made for {model.model_type}", "leave --loss out"
            )
        for name in ("rank", "min_rank"):
            rank = getattr(self, name)
            if rank is not None and not any(means_something("rank", method) for method in self.methods_asked):
                raise InputError(
                    f"{_option(name)} means nothing to {', '.join(self.methods)}",
                    "",
                    f"leave it out, or add a method that has a rank: --method {' '.join(self.methods)} galore-adamw",
                )
            if rank is not None and rank > model.hidden_size:
                raise InputError(
                    f"{_option(name)} {rank} is above every rank of {model.name}",
                    f"the smaller side of its matrices is {model.hidden_size} at most",
                    f"give {model.hidden_size} or less",
                )

    @property
    def bucket_views(self) -> tuple[bool, ...]:
        """Whether to try gradients beside DistributedDataParallel's buckets and in them."""
        if self.data_parallel == 1 or self.trainer:
            return (False,)
        return (False, True) if self.gradient_as_bucket_view is None else (self.gradient_as_bucket_view,)

    def optimizer_kernels(self, method: str) -> tuple[OptimizerKernel, ...]:
        """Kernels of torch's optimizers to try: CUDA's default, whose scratch is as large as what it steps, or none.

        The fused kernel, which has no scratch, is the Trainer's default.
        """
        traits = METHODS[method]
        if traits.parameterisation == "galore" or not means_something("optimizer_kernel", method):
            return ("foreach",)
        if self.trainer:
            return ("fused",) if traits.optimizer == "adamw" else ("foreach",)
        return ("foreach", "fused") if traits.parameterisation == "full" else ("foreach",)

    @property
    def methods_asked(self) -> tuple[str, ...]:
        """The methods to choose from."""
        usual = (name for name, traits in METHODS.items() if traits.states_on == "device" and name not in ONLY_NAMED)
        return self.methods or tuple(name for name in usual if name not in NOT_IN_TRAINER or not self.trainer)

    @property
    def implementation_asked(self) -> Implementation:
        """Whose GaLore."""
        return "galore-torch" if self.trainer else self.implementation

    def losses(self, model: ModelShape) -> tuple[Loss, ...]:
        """Losses to try."""
        if self.loss is not None:
            return (self.loss,)
        return ("full",) if self.trainer or not takes_chunked_loss(model) else ("full", "chunked")

    @property
    def checkpointings(self) -> tuple[Checkpointing, ...]:
        """Whether to try with and without."""
        return (self.checkpointing,) if self.checkpointing is not None else ("none", "full")

    def updates(self, method: str) -> tuple[Update, ...]:
        """Updates to try for a method; gradients of adapters are too small for a per-layer one to matter."""
        if self.update is not None:
            return (self.update,)
        kind = METHODS[method].parameterisation
        whole_only = (
            kind == "lora"
            or METHODS[method].states_on == "host"
            or self.data_parallel > 1
            or (self.trainer and (kind != "galore" or bool(self.global_batch)))
        )
        return ("whole",) if whole_only else ("whole", "per-layer")

    def ranks(self, method: str, model: ModelShape) -> Iterator[int | None]:
        """Ranks to try for a method."""
        kind = METHODS[method].parameterisation
        least, hidden = self.min_rank or 1, model.hidden_size
        if kind == "full":
            yield None
        elif self.rank is not None:
            yield self.rank
        elif kind == "lora":
            yield max(LORA_RANK, least)
        elif kind != "galore":
            yield max(hidden // ENOUGH, least)
        elif self.objective == "rank":
            step = max(1, hidden // 32)
            yield from (rank for rank in range(step, hidden + 1, step) if rank >= least)
        else:
            usual = (rank for rank in usual_ranks(model) if rank > least)
            yield from sorted({*usual} | ({least} if self.min_rank else set()))


def usual_ranks(model: ModelShape) -> Iterator[int]:
    """Ranks that people take for GaLore: a thirty-second of the width to half of it."""
    return (max(1, model.hidden_size // share) for share in (32, 16, 8, ENOUGH, 2))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _choose(choices: tuple[str, ...]) -> str:
    return f"choose {', '.join(choices)}"


_OPTIONS = {"objective": "--for"}
_CHOICES = {
    "objective": get_args(Objective),
    "update": get_args(Update),
    "proj_type": get_args(ProjType),
    "implementation": get_args(Implementation),
    "precision": get_args(Precision),
    "checkpointing": get_args(Checkpointing),
    "attention": get_args(Attention),
    "loss": get_args(Loss),
}
WISHES = tuple(field.name for field in fields(Wishes))
