"""The workloads that `validate` runs, those that tell most first."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from estimators.workload import Workload
from galore_mem.answers.settings import Settings, workloads
from profiles.models import find_model
from profiles.shapes import ModelShape


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One workload of the matrix, as it is declared."""

    name: str
    """Of its record; never used for another workload."""
    model: str
    """In the catalogue."""
    method: str
    layers: int | None = None
    """Fewer than the model has, at its full width; all of them unless given."""
    words: dict[str, Any] = field(default_factory=dict)
    """Fields of `Settings`."""
    on_cpu: bool = False
    """Small enough to be run on CPU tensors."""
    too_large: bool = False
    """Meant to be refused by every card: held against its refusal."""
    shape: ModelShape | None = None
    """Instead of a model of the catalogue."""

    @property
    def workload(self) -> Workload:
        """The run."""
        (found,) = workloads(self._shape(), (self.method,), Settings(**self.words))
        return found

    def _shape(self) -> ModelShape:
        shape = self.shape or find_model(self.model).shape
        if self.layers is None:
            return shape
        return replace(shape, name=f"{shape.name}, {self.layers} layers", num_hidden_layers=self.layers)


def _row(model: str, method: str, /, *, layers: int | None = None, **words: Any) -> Row:  # noqa: ANN401
    flags = {name: words.pop(name) for name in ("on_cpu", "too_large") if name in words}
    parts = [model, f"{layers}-layers" if layers else "", method, *(_spelled(key, words[key]) for key in words)]
    name = "_".join(part.strip("-") for part in parts if part).replace(".", "-")
    return Row(name=name, model=model, method=method, layers=layers, words=words, **flags)


def _spelled(key: str, value: object) -> str:
    """A setting as a part of a file's name: bare where the value says what it is."""
    if key in _BARE:
        return str(value)
    if value is True:
        return _SHORT.get(key, key).replace("_", "-")
    text = "-".join(value) if isinstance(value, tuple) else str(value)
    return f"{_SHORT.get(key, key)}-{text}".replace(":", "-").replace("_", "-")


_BARE = ("update", "implementation", "precision", "attention")
_SHORT = {
    "alloc_conf": "alloc",
    "bnb_4bit_use_double_quant": "double-quant",
    "grad_accumulation": "accumulate",
    "optimizer_kernel": "kernel",
    "target_modules": "",
}
_LAYER: dict[str, Any] = {"update": "per-layer"}
_TORCH: dict[str, Any] = {"implementation": "galore-torch"}
_FULL: dict[str, Any] = {"checkpointing": "full"}

MATRIX: tuple[Row, ...] = (
    # One of everything: what a first look has to show, should time run out.
    _row("llama-60m", "adamw", attention="math", on_cpu=True),
    _row("llama-130m", "galore-adamw-8bit", **_LAYER),
    _row("llama-7b", "galore-adamw-8bit", **_LAYER),
    _row("llama-350m", "galore-adamw", seq=512),
    _row("llama-1b", "adamw-8bit", seq=1024),
    _row("llama-1b", "lora", seq=1024),
    _row("qwen2.5-0.5b", "galore-adamw", seq=512),
    _row("llama-130m", "adamw", precision="amp-bf16", batch=2),
    _row("llama-130m", "adamw", precision="fp32", attention="efficient"),
    _row("llama-1b", "galore-adamw-8bit", **_LAYER, **_FULL, seq=4096),
    _row("llama-350m", "galore-adafactor", seq=512),
    _row("llama-350m", "adamw", alloc_conf="expandable_segments:True", seq=1024),
    _row("llama-130m", "galore-adamw", **_TORCH),
    _row("llama-7b", "lora", seq=2048),
    # Every method, whole and per-layer; smallest members also run on CPU tensors.
    _row("llama-60m", "galore-adamw", attention="math", on_cpu=True),
    _row("llama-60m", "galore-adamw", **_LAYER, attention="math", on_cpu=True),
    _row("llama-60m", "galore-adamw-8bit", attention="math", on_cpu=True),
    _row("llama-60m", "galore-adamw-8bit", **_LAYER, attention="math", on_cpu=True),
    _row("llama-60m", "galore-adafactor", attention="math", on_cpu=True),
    _row("llama-60m", "galore-adafactor", **_LAYER, attention="math", on_cpu=True),
    _row("llama-60m", "adamw-8bit", attention="math", on_cpu=True),
    _row("llama-60m", "adamw", **_LAYER, attention="math", on_cpu=True),
    _row("llama-60m", "lora", attention="math", on_cpu=True),
    _row("llama-350m", "adafactor", seq=512),
    _row("llama-350m", "adafactor", **_LAYER, seq=512),
    _row("llama-350m", "sgd", seq=512),
    _row("llama-350m", "sgd-momentum", **_LAYER, seq=512),
    _row("llama-350m", "adamw-8bit", **_LAYER, seq=512),
    _row("llama-60m", "qlora", autocast=True, bnb_4bit_use_double_quant=True),
    _row("llama-350m", "relora", seq=512),
    _row("llama-350m", "low-rank", seq=512),
    _row("llama-60m", "paged-adamw-8bit"),
    _row("llama-350m", "adamw", optimizer_kernel="fused", seq=512),
    _row("llama-350m", "adamw", optimizer_kernel="loop", seq=512),
    # galore_torch, whose decomposition keeps views and takes its time: few layers at full width.
    _row("llama-60m", "galore-adamw-8bit", **_TORCH, **_LAYER),
    _row("llama-60m", "galore-adafactor", **_TORCH),
    _row("llama-60m", "galore-adamw", **_TORCH, precision="fp32"),
    _row("llama-1b", "galore-adamw", layers=2, **_TORCH, seq=512),
    _row("llama-7b", "galore-adamw-8bit", layers=2, **_TORCH, **_LAYER, target_modules=("down_proj",)),
    # Attention kernels, one model and length.
    _row("llama-350m", "adamw", layers=8, attention="flash", seq=2048),
    _row("llama-350m", "adamw", layers=8, attention="efficient", seq=2048),
    _row("llama-350m", "adamw", layers=8, attention="cudnn", seq=2048),
    _row("llama-350m", "adamw", layers=8, attention="math", seq=2048),
    _row("llama-350m", "adamw", layers=8, attention="eager", seq=2048),
    _row("llama-350m", "adamw", layers=8, attention="efficient", padding=True, batch=2, seq=1024),
    # Sequence length and checkpointing.
    _row("llama-1b", "galore-adamw-8bit", **_LAYER, seq=4096),
    _row("llama-7b", "galore-adamw-8bit", layers=3, **_LAYER, **_FULL, seq=4096),
    _row("llama-350m", "adamw", **_FULL, precision="amp-bf16", seq=2048),
    # Grouped queries, tied embeddings, biases, other vocabularies, at the width of 7B.
    _row("llama-3-8b", "adamw-8bit", layers=4, seq=2048),
    _row("mistral-7b-v0.1", "galore-adamw", layers=2, seq=1024),
    _row("llama-3.2-1b", "galore-adamw-8bit", seq=1024),
    _row("qwen3-0.6b", "adamw", seq=1024),
    _row("llama-7b", "adamw", layers=4, seq=2048),
    # The step itself.
    _row("llama-130m", "galore-adamw", **_LAYER, grad_accumulation=3),
    _row("llama-130m", "adamw", grad_accumulation=3, batch=4, seq=512),
    _row("llama-130m", "adamw", loss="chunked", batch=8, seq=512),
    _row("llama-130m", "adamw", keep_outputs=True, use_cache=True, batch=4, seq=512),
    # The allocator's settings.
    _row("llama-350m", "galore-adamw-8bit", **_LAYER, alloc_conf="expandable_segments:True", seq=1024),
    _row("llama-350m", "adamw", alloc_conf="max_split_size_mb:128", seq=1024),
    _row("llama-350m", "adamw", alloc_conf="roundup_power2_divisions:8", seq=1024),
    # What no card holds: to be refused before, and to be survived.
    _row("llama-13b", "adamw", precision="fp32", too_large=True),
)


def chosen(pattern: str | None = None, *, rows: Sequence[Row] | None = None, on_cpu: bool = False) -> tuple[Row, ...]:
    """Rows of the matrix in its order.

    Args:
        pattern: with shell wildcards, or a part of a name; all where None.
        rows: another matrix.
        on_cpu: only those that CPU tensors can run.
    """
    from fnmatch import fnmatchcase

    found = [row for row in (MATRIX if rows is None else rows) if row.on_cpu or not on_cpu]
    if pattern is None:
        return tuple(found)
    return tuple(row for row in found if pattern in row.name or fnmatchcase(row.name, pattern))
