"""The question: what is trained, and how."""

from dataclasses import asdict, dataclass, field, fields
from operator import attrgetter
from typing import Any, Literal

from profiles.errors import InputError
from profiles.shapes import ModelShape

Update = Literal["whole", "per-layer"]
Implementation = Literal["galore-mem", "galore-torch"]
ProjType = Literal["std", "reverse_std", "left", "right", "full"]
OptimizerKernel = Literal["foreach", "fused", "loop"]
Precision = Literal["bf16", "fp32", "amp-bf16", "amp-fp16"]
Attention = Literal["auto", "flash", "efficient", "cudnn", "math", "eager"]
Checkpointing = Literal["none", "full"]
Loss = Literal["full", "chunked"]
ZeroGrad = Literal["start", "end"]
Resume = Literal["none", "cpu", "device"]
EmptyCache = Literal["none", "step", "backward"]
Parameterisation = Literal["full", "galore", "lora", "relora", "low-rank"]
Optimizer = Literal["adamw", "adamw-8bit", "adamw-32bit", "adafactor", "sgd", "sgd-momentum"]
AdapterDtype = Literal["fp32", "bf16"]
Residence = Literal["device", "paged", "host"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodTraits:
    """What a method's name stands for."""

    optimizer: Optimizer
    parameterisation: Parameterisation
    summary: str
    states_on: Residence = "device"
    """Where states of large parameters live: on the card, in CUDA's managed memory, or in host memory."""
    quantised: bool = False
    """Frozen linear layers keep four bits an element, as bitsandbytes' Linear4bit does."""


METHODS: dict[str, MethodTraits] = {
    "adamw": MethodTraits(optimizer="adamw", parameterisation="full", summary="torch.optim.AdamW, all parameters"),
    "adamw-8bit": MethodTraits(
        optimizer="adamw-8bit", parameterisation="full", summary="bitsandbytes AdamW8bit, all parameters"
    ),
    "paged-adamw-8bit": MethodTraits(
        optimizer="adamw-8bit",
        parameterisation="full",
        summary="bitsandbytes PagedAdamW8bit: states in managed memory, which moves to the host when the card is full",
        states_on="paged",
    ),
    "paged-adamw-32bit": MethodTraits(
        optimizer="adamw-32bit",
        parameterisation="full",
        summary="bitsandbytes PagedAdamW32bit: fp32 states in managed memory",
        states_on="paged",
    ),
    "offload-adamw": MethodTraits(
        optimizer="adamw",
        parameterisation="full",
        summary="torchao CPUOffloadOptimizer around AdamW: states in host memory, stepped there",
        states_on="host",
    ),
    "adafactor": MethodTraits(
        optimizer="adafactor", parameterisation="full", summary="Adafactor as transformers ships it, no momentum"
    ),
    "sgd": MethodTraits(optimizer="sgd", parameterisation="full", summary="torch.optim.SGD without momentum"),
    "sgd-momentum": MethodTraits(
        optimizer="sgd-momentum", parameterisation="full", summary="torch.optim.SGD with momentum"
    ),
    "galore-adamw": MethodTraits(
        optimizer="adamw", parameterisation="galore", summary="GaLore around AdamW: states in a low-rank subspace"
    ),
    "galore-adamw-8bit": MethodTraits(
        optimizer="adamw-8bit", parameterisation="galore", summary="GaLore around AdamW8bit: low-rank 8-bit states"
    ),
    "galore-adafactor": MethodTraits(
        optimizer="adafactor", parameterisation="galore", summary="GaLore around Adafactor: low-rank factored states"
    ),
    "lora": MethodTraits(
        optimizer="adamw", parameterisation="lora", summary="LoRA through peft: frozen weights, trained adapters"
    ),
    "qlora": MethodTraits(
        optimizer="adamw",
        parameterisation="lora",
        summary="QLoRA: LoRA through peft on bitsandbytes NF4 weights",
        quantised=True,
    ),
    "relora": MethodTraits(
        optimizer="adamw",
        parameterisation="relora",
        summary="ReLoRA: adapters merged and restarted; embeddings, norms and head trained in full",
    ),
    "low-rank": MethodTraits(
        optimizer="adamw", parameterisation="low-rank", summary="each target matrix replaced by two trained factors"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """Optimizer family and parameterisation, with their settings."""

    name: str = "adamw"
    """A key of `METHODS`."""
    update: Update = "whole"
    """`per-layer` steps each parameter as its gradient is born, in backward."""
    implementation: Implementation = "galore-mem"
    """Whose GaLore: ours, or galore_torch 1.0 as a Hugging Face Trainer user gets it."""
    rank: int | None = None
    """Rank of projectors, adapters or factors; None for methods that have none."""
    update_proj_gap: int = 200
    """Steps between two refreshes of a projector."""
    scale: float = 0.25
    proj_type: ProjType = "std"
    target_modules: tuple[str, ...] = ("all-linear",)
    """Name parts or regular expressions; `all-linear` is every linear layer except the output head."""
    optimizer_kernel: OptimizerKernel = "foreach"
    """torch's AdamW and SGD kernels; `foreach` is the default on CUDA."""
    quant_blocksize: int = 256
    """Elements that share one scale in 8-bit states (2048 before May 2024)."""
    master_weights: bool = False
    """The optimizer steps fp32 copies of half-precision weights, as Megatron-Core does."""
    unpaged: bool = False
    """A checkpoint has made ordinary tensors of paged states."""
    lora_dropout: float = 0.0
    adapter_dtype: AdapterDtype = "fp32"
    """Of LoRA's adapters: fp32 as peft makes them beside half-precision weights, bf16 as TRL's SFTTrainer leaves them
    beside 4-bit ones."""
    bnb_4bit_use_double_quant: bool = False
    """QLoRA: scales of the 4-bit weights are quantised too. Name and default of transformers' BitsAndBytesConfig."""
    embedding_optim_bits: Literal[8, 32] = 8
    """States of embeddings under plain 8-bit optimizers; transformers' Trainer registers them for 32 bits."""

    @property
    def optimizer(self) -> Optimizer:
        """The inner optimizer's family."""
        return METHODS[self.name].optimizer

    @property
    def parameterisation(self) -> Parameterisation:
        """Which parameters are trained, and through what."""
        return METHODS[self.name].parameterisation

    @property
    def quantised(self) -> bool:
        """Whether frozen linear layers keep four bits an element."""
        return METHODS[self.name].quantised

    @property
    def states_on(self) -> Residence:
        """Where states of large parameters live."""
        return "device" if self.unpaged else METHODS[self.name].states_on

    @property
    def kernel(self) -> OptimizerKernel:
        """The kernel that steps on the card; an offloading optimizer takes the fused one for what it leaves there."""
        return "fused" if self.states_on == "host" else self.optimizer_kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one optimizer step consumes."""

    micro_batch_size: int = 1
    sequence_length: int = 256
    gradient_accumulation_steps: int = 1

    @property
    def tokens(self) -> int:
        """Tokens in one micro-batch."""
        return self.micro_batch_size * self.sequence_length


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One training run: everything that decides its memory, except the card."""

    model: ModelShape
    method: Method = field(default_factory=Method)
    precision: Precision = "bf16"
    """`bf16` and `fp32` are pure; `amp-*` keep fp32 weights under autocast."""
    autocast: bool = False
    """bf16 weights run under autocast all the same, as transformers' Trainer has it with `bf16=True`."""
    batch: Batch = field(default_factory=Batch)
    attention: Attention = "auto"
    checkpointing: Checkpointing = "none"
    loss: Loss = "full"
    keep_outputs: bool = False
    """The model's `outputs` stay referenced during backward."""
    use_cache: bool = False
    """The forward keeps a key-value cache in `outputs`."""
    dropout: float | None = None
    """Overrides the config's attention dropout; None takes the config's."""
    padding: bool = False
    """The batch carries a padding mask."""
    zero_grad: ZeroGrad = "start"
    """Where `zero_grad(set_to_none=True)` stands: at the top of the step, or after the optimizer's step."""
    eval_batch: int | None = None
    """Sequences in a batch of evaluation between steps; None where there is none."""
    eval_seq: int | None = None
    """Tokens in a sequence of evaluation; None means those of training."""
    eval_keep: int | None = None
    """Batches of evaluation whose logits stay on the card."""
    resume: Resume = "none"
    """The run goes on from a checkpoint, which `torch.load` maps to the host or to the device."""
    empty_cache: EmptyCache = "none"
    """Where `torch.cuda.empty_cache()` is called every time: after the optimizer's step, or before backward."""
    clip: bool = False
    """Gradients are clipped by their global norm before the optimizer's step."""
    data_parallel: int = 1
    """GPUs that train copies of the model and average their gradients: torch's DistributedDataParallel."""
    gradient_as_bucket_view: bool = False
    """DistributedDataParallel's own option: gradients are views of the buckets in which they are averaged."""
    bucket_cap_mb: int | None = None
    """DistributedDataParallel's own option: MiB in a bucket; None is 25, and 1 for the first."""
    allocator_settings: str = ""
    """As in PYTORCH_CUDA_ALLOC_CONF."""

    @property
    def runs_autocast(self) -> bool:
        """Whether forward runs under autocast."""
        return self.autocast or self.precision.startswith("amp")

    @property
    def weight_itemsize(self) -> int:
        """Bytes per element of parameters and gradients."""
        return 2 if self.precision == "bf16" else 4

    @property
    def compute_itemsize(self) -> int:
        """Bytes per element of matrix products' inputs."""
        return 4 if self.precision == "fp32" else 2

    @property
    def frees_gradients(self) -> bool:
        """Each gradient dies as soon as it has been copied into its bucket."""
        return self.data_parallel > 1 and self.gradient_as_bucket_view

    def to_dict(self) -> dict[str, Any]:
        """The WORKLOAD object of the JSON output."""
        data = asdict(self)
        data["model"] = self.model.name
        data["method"]["target_modules"] = list(self.method.target_modules)
        return data


def resized(batch: Batch, *, micro_batch_size: int | None = None, sequence_length: int | None = None) -> Batch:
    """Another micro-batch size or sequence length, over as many micro-batches."""
    return Batch(
        micro_batch_size=micro_batch_size or batch.micro_batch_size,
        sequence_length=sequence_length or batch.sequence_length,
        gradient_accumulation_steps=batch.gradient_accumulation_steps,
    )


def with_batch(
    workload: Workload, *, micro_batch_size: int | None = None, sequence_length: int | None = None
) -> Workload:
    """The same workload at another micro-batch size or sequence length."""
    return in_batch(
        workload, resized(workload.batch, micro_batch_size=micro_batch_size, sequence_length=sequence_length)
    )


def in_batch(workload: Workload, batch: Batch) -> Workload:
    """The same workload in another batch: `dataclasses.replace` in an eighth of its time; searches make thousands."""
    made = object.__new__(Workload)
    for put, value in zip(_PUT_BESIDE_BATCH, _beside_batch(workload), strict=True):
        put(made, value)
    _put_batch(made, batch)
    return made


_BESIDE_BATCH = tuple(entry.name for entry in fields(Workload) if entry.name != "batch")
_beside_batch = attrgetter(*_BESIDE_BATCH)
_PUT_BESIDE_BATCH = tuple(vars(Workload)[name].__set__ for name in _BESIDE_BATCH)
"""Into the slots themselves, which are frozen for everybody else."""
_put_batch = vars(Workload)["batch"].__set__


def method_traits(name: str) -> MethodTraits:
    """Traits of a method by name.

    Raises:
        InputError: no such method; names the nearest ones.
    """
    if name in METHODS:
        return METHODS[name]
    from difflib import get_close_matches

    several = [part.strip() for part in name.split(",") if part.strip()]
    if len(several) > 1:
        raise InputError(f"unknown method {name!r}", "", f"put blanks between names: {' '.join(several)}")
    plain = name.lower().replace("_", "-")
    near = [plain] if plain in METHODS else [known for known in METHODS if len(plain) > 2 and plain in known]
    near = near or get_close_matches(plain, METHODS, n=3) or list(METHODS)
    raise InputError(f"unknown method {name!r}", "", f"try one of: {', '.join(near)}")
