"""What a person may set about a training run, and the workloads that follow from it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self, get_args

from estimators.workload import (
    METHODS,
    AdapterDtype,
    Attention,
    Batch,
    Checkpointing,
    EmptyCache,
    Implementation,
    Loss,
    Method,
    MethodTraits,
    OptimizerKernel,
    Precision,
    ProjType,
    Resume,
    Update,
    Workload,
    ZeroGrad,
    method_traits,
)
from profiles.errors import InputError
from profiles.shapes import ModelShape

LORA_RANK = 16
"""A usual choice; peft's own default is 8."""
STORY: tuple[tuple[str, Update], ...] = (
    ("adamw", "whole"),
    ("adamw-8bit", "whole"),
    ("lora", "whole"),
    ("galore-adamw", "whole"),
    ("galore-adamw-8bit", "whole"),
    ("galore-adamw-8bit", "per-layer"),
)
"""Methods and updates of a plan for which no method was named."""
QUANT_BLOCKSIZES = (64, 128, 256, 512, 1024, 2048, 4096)
"""What bitsandbytes' blockwise kernels accept (backends/cuda/ops.py); its optimizers used 2048, then 256."""
LARGEST_COUNT = 2**31 - 1
"""Of anything that a run has; beyond it torch's own sizes overflow."""


class _Stated:
    """Remembers which fields were stated: a default that somebody asked for is more than a default."""

    __slots__ = ("stated",)
    stated: frozenset[str]

    def __new__(cls, *_: object, **words: object) -> Self:
        made = super().__new__(cls)
        object.__setattr__(made, "stated", frozenset(words))
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(_Stated):
    """One training run as options; None leaves the choice to the method."""

    update: Update | None = None
    """whole: all gradients, then one step. per-layer: each parameter steps as soon as its gradient is there."""
    rank: int | None = None
    """Rank of projectors, adapters or factors; hidden size / 4, for LoRA 16, unless given."""
    update_proj_gap: int | None = None
    """GaLore: steps between two refreshes of a projector; 200 unless given."""
    scale: float | None = None
    """GaLore: factor on the projected update; 0.25 unless given. It changes no memory."""
    proj_type: ProjType | None = None
    """GaLore: which side of a matrix is projected; std, the smaller one, unless given."""
    target_modules: tuple[str, ...] | None = None
    """Parts of module names, or regular expressions; all-linear unless given."""
    implementation: Implementation | None = None
    """GaLore: ours, or galore_torch 1.0 with its real memory behaviour; galore-mem unless given."""
    optimizer_kernel: OptimizerKernel | None = None
    """torch's AdamW and SGD: foreach, CUDA's default, unless given."""
    master_weights: bool = False
    """bf16: the optimizer steps fp32 copies of the weights, with gradients cast to fp32, as Megatron-Core does."""
    quant_blocksize: int | None = None
    """8-bit states: elements that share one scale; 256 unless given, 2048 before May 2024."""
    embedding_optim_bits: int | None = None
    """8-bit states: those of embeddings, 32 as transformers' Trainer keeps them; 8 unless given."""
    lora_dropout: float | None = None
    """LoRA and ReLoRA: dropout before the adapters; 0 unless given."""
    adapter_dtype: AdapterDtype | None = None
    """LoRA: fp32, as peft makes adapters, unless given; bf16 as TRL's SFTTrainer leaves QLoRA's."""
    bnb_4bit_use_double_quant: bool = False
    """QLoRA: scales of the 4-bit weights are quantised too, as in its paper; not transformers' default."""
    batch: int = 1
    """Sequences in one micro-batch."""
    seq: int = 256
    """Tokens in one sequence."""
    grad_accumulation: int = 1
    """Micro-batches in one optimizer step."""
    precision: Precision = "bf16"
    """bf16 and fp32 are pure; amp-* keep fp32 weights under autocast."""
    autocast: bool = False
    """bf16: under autocast all the same, as a Trainer with bf16=True runs it; fp32 adapters then compute in bf16."""
    checkpointing: Checkpointing = "none"
    """full: each layer keeps its input only, and is computed again in backward."""
    attention: Attention = "auto"
    """auto is what torch's SDPA would choose for the card, dtype and mask."""
    loss: Loss = "full"
    """chunked never holds the logits of all tokens at once."""
    keep_outputs: bool = False
    """The model's outputs stay referenced during backward."""
    use_cache: bool = False
    """The forward also keeps a key-value cache, as most configs say unless switched off."""
    dropout: float | None = None
    """Dropout in attention; the config's unless given."""
    padding: bool = False
    """The batch carries a padding mask, which switches flash attention off."""
    zero_grad: ZeroGrad = "start"
    """Where zero_grad stands: at the start of a step, or at its end."""
    eval_batch: int | None = None
    """Sequences in a batch of evaluation between steps, as transformers' Trainer runs it; none runs unless given."""
    eval_seq: int | None = None
    """Tokens in a sequence of evaluation; those of training unless given."""
    eval_keep: int | None = None
    """Batches of evaluation whose logits stay on the card, for metrics; none unless given."""
    resume: Resume = "none"
    """The run goes on from a checkpoint: torch.load maps it to the cpu, or to the device beside the model."""
    empty_cache: EmptyCache = "none"
    """torch.cuda.empty_cache() after every step, or before every backward, where transformers' Trainer calls it."""
    clip: bool = False
    """Gradients are clipped by their global norm, as torch.nn.utils.clip_grad_norm_ does."""
    data_parallel: int = 1
    """GPUs that train copies of the model under torch's DistributedDataParallel; figures are those of each GPU."""
    gradient_as_bucket_view: bool = False
    """Data-parallel: gradients are views of DistributedDataParallel's buckets, instead of copies beside them."""
    bucket_cap_mb: int | None = None
    """Data-parallel: MiB in one of DistributedDataParallel's buckets; 25, and 1 in the first, unless given."""
    alloc_conf: str | None = None
    """Allocator settings, as in PYTORCH_CUDA_ALLOC_CONF."""

    def __post_init__(self) -> None:
        """Refuse values that mean nothing.

        Raises:
            InputError: names the option and what it accepts.
        """
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise InputError(f"{_option(name)} {value!r} is not known", "", f"choose {', '.join(choices)}")
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"{_option(name)} {value!r} is not a positive whole number", "", "give 1 or more")
            if value is not None and value > LARGEST_COUNT:
                raise InputError(
                    f"{_option(name)} {value} is more than any run has", "", f"give {LARGEST_COUNT} or less"
                )
        if self.scale is not None and not 0 < self.scale < float("inf"):
            raise InputError(f"--scale {self.scale} is not a positive number", "", "GaLore's default is 0.25")
        for name, value in (("--dropout", self.dropout), ("--lora-dropout", self.lora_dropout)):
            if value is not None and not 0 <= value < 1:
                raise InputError(f"{name} {value} is not a probability", "", "give 0 or more, and less than 1")
        if self.quant_blocksize not in (None, *QUANT_BLOCKSIZES):
            sizes = ", ".join(map(str, QUANT_BLOCKSIZES))
            raise InputError(f"--quant-blocksize {self.quant_blocksize} has no kernel", "", f"choose {sizes}")

        if self.embedding_optim_bits not in (None, 8, 32):
            raise InputError(f"--embedding-optim-bits {self.embedding_optim_bits} is not known", "", "choose 8, 32")

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the settings that differ from their defaults."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) != field.default)


def settings_from(words: dict[str, Any]) -> Settings:
    """Settings by keyword, for Python callers.

    Raises:
        InputError: an unknown name, with the nearest ones.
    """
    known = [field.name for field in fields(Settings)]
    for name in words:
        if name not in known:
            from difflib import get_close_matches

            near = get_close_matches(name, {*known, "model", "gpu", "gpus", "method", "methods"} - {name}, n=3) or known
            raise InputError(f"no setting is called {name!r} here", "", f"try {', '.join(near)}")
    target = words.get("target_modules")
    if target is not None:
        words = words | {"target_modules": (target,) if isinstance(target, str) else tuple(target)}
    return Settings(**words)


def workloads(model: ModelShape, methods: Sequence[str], settings: Settings) -> tuple[Workload, ...]:
    """One workload per method; the story of six configurations where none is named.

    Raises:
        InputError: an unknown method, or a setting that none of the methods has.
    """
    story = [pair for pair in STORY if settings.data_parallel == 1 or pair[1] == "whole"]
    pairs = [(name, settings.update) for name in methods] or [(name, settings.update or own) for name, own in story]
    traits = [method_traits(name) for name, _ in pairs]
    for setting in settings.given:
        if setting in _APPLIES and not any(map(_APPLIES[setting], traits)):
            raise _useless(setting, [name for name, _ in pairs])
    found = [workload_of(model, _method(name, update, model, settings), settings) for name, update in pairs]
    return tuple(dict.fromkeys(found))


def workload_of(model: ModelShape, method: Method, settings: Settings) -> Workload:
    """One workload."""
    if settings.resume != "none" and method.states_on == "paged":
        method = replace(method, unpaged=True)
    return Workload(
        model=model,
        method=method,
        precision=settings.precision,
        autocast=settings.autocast,
        batch=Batch(
            micro_batch_size=settings.batch,
            sequence_length=settings.seq,
            gradient_accumulation_steps=settings.grad_accumulation,
        ),
        attention=settings.attention,
        checkpointing=settings.checkpointing,
        loss=settings.loss,
        keep_outputs=settings.keep_outputs,
        use_cache=settings.use_cache,
        dropout=settings.dropout,
        padding=settings.padding,
        zero_grad=settings.zero_grad,
        eval_batch=settings.eval_batch,
        eval_seq=settings.eval_seq,
        eval_keep=settings.eval_keep,
        resume=settings.resume,
        empty_cache=settings.empty_cache,
        clip=settings.clip,
        data_parallel=settings.data_parallel,
        gradient_as_bucket_view=settings.gradient_as_bucket_view,
        bucket_cap_mb=settings.bucket_cap_mb,
        allocator_settings=settings.alloc_conf or "",
    )


def _method(name: str, update: Update | None, model: ModelShape, settings: Settings) -> Method:
    traits = METHODS[name]
    words: dict[str, Any] = {"name": name, "update": update or "whole", "rank": default_rank(name, model)}
    given = settings.given
    for setting, applies in _APPLIES.items():
        if setting in given and applies(traits):
            words[setting] = getattr(settings, setting)
    return Method(**words)


def default_rank(name: str, model: ModelShape) -> int | None:
    """The rank where none is given: a quarter of the width, as the GaLore paper trains 7B, and 16 for LoRA."""
    parameterisation = METHODS[name].parameterisation
    if parameterisation == "full":
        return None
    return LORA_RANK if parameterisation == "lora" else max(1, model.hidden_size // 4)


def means_something(setting: str, method: str) -> bool:
    """Whether a method has a setting; those that only some methods have are about ranks, projectors and kernels."""
    return setting not in _APPLIES or _APPLIES[setting](METHODS[method])


def _useless(setting: str, methods: Iterable[str]) -> InputError:
    owners = [name for name, traits in METHODS.items() if _APPLIES[setting](traits)]
    return InputError(
        f"{_option(setting)} means nothing to {', '.join(dict.fromkeys(methods))}",
        "",
        f"leave it out, or use --method {owners[0]}" + f" (also: {', '.join(owners[1:])})" * (len(owners) > 1),
    )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _galore(traits: MethodTraits) -> bool:
    return traits.parameterisation == "galore"


def _reparameterised(traits: MethodTraits) -> bool:
    return traits.parameterisation != "full"


_APPLIES: dict[str, Callable[[MethodTraits], bool]] = {
    "rank": _reparameterised,
    "target_modules": _reparameterised,
    "update_proj_gap": _galore,
    "scale": _galore,
    "proj_type": _galore,
    "implementation": _galore,
    "lora_dropout": lambda traits: traits.parameterisation in ("lora", "relora"),
    "adapter_dtype": lambda traits: traits.parameterisation == "lora",
    "bnb_4bit_use_double_quant": lambda traits: traits.quantised,
    "embedding_optim_bits": lambda traits: (traits.optimizer, traits.parameterisation) == ("adamw-8bit", "full"),
    "quant_blocksize": lambda traits: traits.optimizer == "adamw-8bit",
    "master_weights": lambda traits: (
        traits.optimizer in ("adamw", "sgd", "sgd-momentum")
        and (traits.parameterisation, traits.states_on) == ("full", "device")
    ),
    "optimizer_kernel": lambda traits: (
        traits.optimizer in ("adamw", "sgd", "sgd-momentum") and traits.states_on == "device"
    ),
}
"""Which methods a method's setting means something to; `update` means something to all."""
OF_A_METHOD = tuple(_APPLIES)
"""Settings that only some methods have."""
_CHOICES = {
    "update": get_args(Update),
    "adapter_dtype": get_args(AdapterDtype),
    "proj_type": get_args(ProjType),
    "implementation": get_args(Implementation),
    "optimizer_kernel": get_args(OptimizerKernel),
    "precision": get_args(Precision),
    "checkpointing": get_args(Checkpointing),
    "attention": get_args(Attention),
    "loss": get_args(Loss),
    "zero_grad": get_args(ZeroGrad),
    "resume": get_args(Resume),
    "empty_cache": get_args(EmptyCache),
}
_COUNTS = (
    "rank",
    "update_proj_gap",
    "quant_blocksize",
    "batch",
    "seq",
    "grad_accumulation",
    "eval_batch",
    "eval_seq",
    "eval_keep",
    "data_parallel",
    "bucket_cap_mb",
)
