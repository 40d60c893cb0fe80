"""What can be set, each as a control: its label, what it may be, and how a typed value is read."""

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from estimators.workload import METHODS
from galore_mem.answers.settings import QUANT_BLOCKSIZES, Settings
from galore_mem.answers.sizes import size_bytes
from galore_mem.tui.state import DEFAULTS, State, Value
from profiles.errors import InputError

Kind = Literal["names", "choice", "number", "text"]
_HINTS = get_type_hints(Settings)
_NUMBERS_OFFERED = ("quant_blocksize", "embedding_optim_bits")
"""Numbers of which there are no others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One line of the settings."""

    name: str
    """A field of `Settings`, or of the state: `models`, `gpus`, `methods`, `other_use`."""
    label: str
    kind: Kind
    choices: tuple[Value, ...] = ()
    """What is offered."""
    help: str = ""
    free: bool = False
    """Whether something else may be typed."""

    @property
    def is_setting(self) -> bool:
        """Whether its values make rows of their own."""
        return self.name in DEFAULTS


def _setting(name: str, label: str, *choices: Value, help: str) -> Control:
    hint = _HINTS[name]
    bare = next((part for part in get_args(hint) if part is not type(None)), hint) if _is_optional(hint) else hint
    if get_origin(bare) is Literal:
        return Control(name=name, label=label, kind="choice", choices=get_args(bare), help=help)
    if bare is bool:
        return Control(name=name, label=label, kind="choice", choices=(False, True), help=help)
    kind: Kind = "number" if bare in (int, float) else "text"
    return Control(name=name, label=label, kind=kind, choices=choices, help=help, free=name not in _NUMBERS_OFFERED)


def _is_optional(hint: Any) -> bool:  # noqa: ANN401
    return type(None) in get_args(hint)


ALLOCATORS = ("", "expandable_segments:True", "max_split_size_mb:128", "garbage_collection_threshold:0.8")
CONTROLS: tuple[Control, ...] = (
    Control(name="models", label="model", kind="names", free=True, help="A catalogue name, a path, or a Hub id."),
    Control(
        name="gpus", label="GPUs", kind="names", help="The columns of the matrix; local means this machine's, live."
    ),
    Control(
        name="other_use", label="others use", kind="text", free=True, help="What others take from each card: 800MiB."
    ),
    Control(
        name="methods",
        label="methods",
        kind="names",
        choices=tuple(METHODS),
        help="Nothing ticked means the story of six.",
    ),
    _setting("rank", "rank", 16, 64, 128, 256, 512, 1024, 2048, help="Of projectors, adapters or factors."),
    _setting("update", "update", help="whole: one step for all. per-layer: as each gradient is there."),
    _setting("precision", "precision", help="bf16 and fp32 are pure; amp-* keep fp32 weights under autocast."),
    _setting("batch", "batch", 1, 2, 4, 8, 16, 32, help="Sequences in one micro-batch."),
    _setting("seq", "sequence", 256, 512, 1024, 2048, 4096, 8192, help="Tokens in one sequence."),
    _setting("grad_accumulation", "accumulate", 1, 2, 4, 8, 16, help="Micro-batches in one optimizer step."),
    _setting("checkpointing", "checkpointing", help="full: layers keep their input only and are computed again."),
    _setting("attention", "attention", help="auto is what torch's SDPA would choose for the card."),
    _setting("loss", "loss", help="chunked never holds the logits of all tokens at once."),
    _setting("alloc_conf", "allocator", *ALLOCATORS, help="As in PYTORCH_CUDA_ALLOC_CONF; a trace applies it."),
    _setting("optimizer_kernel", "kernel", help="torch's AdamW and SGD: foreach is CUDA's default."),
    _setting("master_weights", "fp32 masters", help="The optimizer steps fp32 copies of bf16 weights."),
    _setting("implementation", "GaLore by", help="Ours, or galore_torch 1.0 with its real memory behaviour."),
    _setting("proj_type", "projection", help="Which side of a matrix GaLore projects."),
    _setting("update_proj_gap", "refresh every", 50, 100, 200, 500, help="Steps between two refreshes of a projector."),
    _setting("scale", "scale", 0.25, 0.5, 1.0, help="GaLore's factor on the update; it changes no memory."),
    _setting("target_modules", "targets", ("all-linear",), ("q_proj", "v_proj"), help="Parts of module names."),
    _setting("embedding_optim_bits", "embedding bits", 8, 32, help="States of embeddings under 8-bit optimizers."),
    _setting("quant_blocksize", "8-bit block", *QUANT_BLOCKSIZES, help="Elements that share one scale."),
    _setting("keep_outputs", "keep outputs", help="The model's outputs stay referenced during backward."),
    _setting("use_cache", "use cache", help="The forward also keeps a key-value cache."),
    _setting("dropout", "dropout", 0.0, 0.05, 0.1, help="In attention; the config's unless given."),
    _setting("lora_dropout", "LoRA dropout", 0.0, 0.05, 0.1, help="In front of LoRA's adapters."),
    _setting("autocast", "autocast", help="bf16 weights under autocast, as a Trainer with bf16=True runs them."),
    _setting("adapter_dtype", "adapters", help="LoRA's, in fp32 as peft makes them or in bf16."),
    _setting("bnb_4bit_use_double_quant", "double quant", help="QLoRA: the scales of 4-bit weights are quantised too."),
    _setting("padding", "padding", help="The batch carries a padding mask: no flash attention."),
    _setting("zero_grad", "zero_grad", help="At the start of a step, or at its end."),
    _setting("eval_batch", "eval batch", 1, 8, 16, 32, help="Sequences in a batch of evaluation between steps."),
    _setting("eval_seq", "eval sequence", 256, 1024, 4096, help="Tokens in a sequence of evaluation."),
    _setting("eval_keep", "eval keeps", 1, 10, 100, help="Batches of evaluation whose logits stay on the card."),
    _setting("resume", "resume", help="The run goes on from a checkpoint, mapped to the host or to the card."),
    _setting("empty_cache", "empty cache", help="After every step, or before every backward; a trace applies it."),
    _setting("clip", "clip gradients", help="By their global norm, before the step."),
    _setting("data_parallel", "data parallel", 1, 2, 4, 8, help="GPUs under DistributedDataParallel; figures: each."),
    _setting("gradient_as_bucket_view", "bucket views", help="Gradients are views of DDP's buckets, not beside them."),
    _setting("bucket_cap_mb", "bucket MiB", 25, 50, 100, help="Of one of DDP's buckets."),
)
BY_NAME = {control.name: control for control in CONTROLS}


_PLURALS = {"gpus": "cards", "models": "models", "methods": "methods"}


def said(value: Value) -> str:
    """A value as people read it."""
    if value == "":
        return "default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "+".join(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def chosen(control: Control, state: State) -> tuple[Value, ...]:
    """The values of a control; empty where it is left at its default."""
    if control.is_setting:
        return state.values(control.name)
    found = getattr(state, control.name)
    if isinstance(found, str):
        return (found,) if found else ()
    return tuple(found)


def shown(control: Control, state: State) -> tuple[str, bool]:
    """The value as text, and whether it is the default's."""
    values = chosen(control, state)
    if values:
        text = ", ".join(map(said, values))
        return (
            text if len(text) <= 11 or len(values) == 1 else f"{len(values)} {_PLURALS.get(control.name, 'values')}"
        ), False
    default = DEFAULTS.get(control.name)
    if control.name == "methods":
        return "story of six", True
    if control.name == "other_use":
        return "nothing", True
    if control.name == "alloc_conf":
        return "default", True
    return (said(default) if default is not None else _LEFT_OPEN.get(control.name, "by method")), True


_LEFT_OPEN = {"eval_batch": "none", "eval_seq": "as trained", "eval_keep": "none", "dropout": "by model"} | {
    "bucket_cap_mb": "25"
}
"""What a setting without a value means where no method decides it."""


def read(control: Control, text: str) -> tuple[Value, ...]:
    """Values as a person types them, with commas between.

    Raises:
        InputError: not a number, or nothing of the kind that the control takes.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if control.name == "alloc_conf":
        return (text.strip(),)
    if control.name == "target_modules":
        return (tuple(parts),)
    if control.name == "other_use":
        if parts:
            size_bytes(text.strip(), "others use")
        return (text.strip(),)
    return tuple(_number(control, part) if control.kind == "number" else part for part in parts)


def _number(control: Control, text: str) -> int | float:
    is_float = float in (_HINTS[control.name], *get_args(_HINTS[control.name]))
    try:
        return float(text) if is_float else int(text.replace("_", ""))
    except ValueError:
        raise InputError(
            f"{control.label} {text[:40]!r} is not a number", "", "give numbers, with commas between"
        ) from None


def stepped(control: Control, state: State, step: int) -> tuple[Value, ...] | None:
    """The next or the previous value: of a choice the neighbour, of a number the double or the half."""
    values = chosen(control, state)
    if not control.is_setting:
        return None
    default = DEFAULTS[control.name]
    if control.kind == "number" and control.name not in ("scale", "dropout", "lora_dropout", *_NUMBERS_OFFERED):
        start = values or ((default,) if default is not None else (control.choices[len(control.choices) // 2],))
        return tuple(max(1, int(value) * 2 if step > 0 else int(value) // 2) for value in start)  # type: ignore[arg-type]
    ring: tuple[Value | None, ...] = control.choices if default in control.choices else (None, *control.choices)
    now = values[0] if values else default
    place = ring.index(now) if now in ring else 0
    found = ring[(place + step) % len(ring)]
    return () if found is None else (found,)
