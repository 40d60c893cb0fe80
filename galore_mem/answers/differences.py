"""Why two configurations differ: one setting after another changed, and what each change moves at the peak."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from estimators.analytic.attention import attention_kernel
from estimators.analytic.estimate import estimate
from estimators.footprint import CATEGORIES, Footprint
from estimators.workload import Workload
from profiles.errors import InputError
from profiles.gpus import Gpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One setting changed, on top of all changes before it."""

    text: str
    """In words: `update per-layer instead of whole`."""
    before: Footprint
    after: Footprint

    @property
    def process_change_bytes(self) -> int:
        """How much more the process takes."""
        return self.after.process_bytes - self.before.process_bytes

    @property
    def by_category(self) -> dict[str, int]:
        """What it changes at the peak, the largest change first."""
        return changed_categories(self.before, self.after)

    @property
    def beyond_tensors(self) -> dict[str, int]:
        """What it changes between tensors and process, the largest first; with `by_category` that is all of it."""
        return changed_terms(self.before, self.after)

    @property
    def moves_peak(self) -> bool:
        """Whether another moment wins."""
        return self.before.peak.label != self.after.peak.label


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """From one configuration to another."""

    workload: Workload
    """The other one."""
    before: Footprint
    after: Footprint
    steps: tuple[Step, ...]
    """Their changes add up to the whole one; each one's own size depends on the order."""

    def to_dict(self) -> dict[str, Any]:
        """The `difference` object of the JSON output."""
        return {
            "workload": self.workload.to_dict(),
            "footprint": self.after.to_dict(),
            "by_category": changed_categories(self.before, self.after),
            "beyond_tensors": changed_terms(self.before, self.after),
            "steps": [
                {
                    "change": step.text,
                    "process_change_bytes": step.process_change_bytes,
                    "by_category": step.by_category,
                    "beyond_tensors": step.beyond_tensors,
                    "peak_moment": step.after.peak.label,
                }
                for step in self.steps
            ],
        }


def changed_categories(before: Footprint, after: Footprint) -> dict[str, int]:
    """Bytes that each category has more at the second peak, the largest change first; none that stay equal."""
    changes = {name: after.peak.by_category.get(name, 0) - before.peak.by_category.get(name, 0) for name in CATEGORIES}
    return _largest_first(changes)


def changed_terms(before: Footprint, after: Footprint) -> dict[str, int]:
    """Bytes that each term between live tensors and the process has more, the largest change first; none that stay."""
    changes = dict[str, int]()
    for sign, footprint in ((-1, before), (1, after)):
        for term in footprint.terms:
            changes[term.name] = changes.get(term.name, 0) + sign * term.low_bytes
    return _largest_first(changes)


def _largest_first(changes: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(((name, change) for name, change in changes.items() if change), key=lambda pair: -abs(pair[1])))


def difference(before: Workload, after: Workload, gpu: Gpu | None = None) -> Difference:
    """Compare two workloads of one model, setting by setting.

    Raises:
        InputError: one of them cannot run on the card.
    """
    first, last = estimate(before, gpu), estimate(after, gpu)
    return Difference(workload=after, before=first, after=last, steps=tuple(_steps(before, after, first, last, gpu)))


def _steps(before: Workload, after: Workload, first: Footprint, last: Footprint, gpu: Gpu | None) -> Iterator[Step]:
    """A change that cannot stand alone (a kernel that the card lacks until another setting changes) joins the next."""
    current, footprint, texts = before, first, list[str]()
    for text, changed in _path(current, after, gpu):
        texts.append(text)
        with suppress(InputError):
            found = last if changed == after else estimate(changed, gpu)
            yield Step(text=", ".join(texts), before=footprint, after=found)
            footprint, texts = found, []


_METHOD = (
    "name",
    "rank",
    "target_modules",
    "implementation",
    "proj_type",
    "update_proj_gap",
    "scale",
    "lora_dropout",
    "adapter_dtype",
    "bnb_4bit_use_double_quant",
)
_OWN = ("update", "optimizer_kernel", "master_weights", "quant_blocksize", "embedding_optim_bits")
_BATCH = ("micro_batch_size", "sequence_length", "gradient_accumulation_steps")
_RUN = (
    "precision",
    "autocast",
    "attention",
    "checkpointing",
    "loss",
    "keep_outputs",
    "use_cache",
    "dropout",
    "padding",
    "zero_grad",
    "eval_batch",
    "eval_seq",
    "eval_keep",
    "resume",
    "empty_cache",
    "clip",
    "data_parallel",
    "gradient_as_bucket_view",
    "bucket_cap_mb",
    "allocator_settings",
)


def _path(before: Workload, after: Workload, gpu: Gpu | None) -> Iterator[tuple[str, Workload]]:
    """Every setting that differs, changed in turn: what that is in words, and the workload it gives."""
    current = before
    for names, whole in ((_METHOD, True), (_OWN, False)):
        changes = {
            name: getattr(after.method, name)
            for name in names
            if getattr(after.method, name) != getattr(before.method, name)
        }
        parts = [changes] if whole and changes else [{name: value} for name, value in changes.items()]
        for part in parts:
            text = _method_text(before, after) if whole else _text(before.method, part)
            current = replace(current, method=replace(current.method, **part))
            yield text, current
    for name in _BATCH:
        if getattr(after.batch, name) != getattr(before.batch, name):
            change = {name: getattr(after.batch, name)}
            current = replace(current, batch=replace(current.batch, **change))
            yield _text(before.batch, change), current
    for name in _RUN:
        if getattr(after, name) != getattr(before, name):
            change = {name: getattr(after, name)}
            current = replace(current, **change)
            yield (_kernels(before, after, gpu) if name == "attention" else _text(before, change)), current


def _method_text(before: Workload, after: Workload) -> str:
    a, b = before.method, after.method
    if a.name != b.name:
        return f"{b.name}{_rank(b.rank)} instead of {a.name}{_rank(a.rank)}"
    return _text(a, {name: getattr(b, name) for name in _METHOD if getattr(a, name) != getattr(b, name)})


def _rank(rank: int | None) -> str:
    return f" r{rank}" if rank is not None else ""


def _text(before: object, changes: Mapping[str, object]) -> str:
    said = (
        f"{name.replace('_', ' ')} {_said(b)} instead of {_said(getattr(before, name))}" for name, b in changes.items()
    )
    return ", ".join(said)


def _said(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _kernels(before: Workload, after: Workload, gpu: Gpu | None) -> str:
    a, b = attention_kernel(before, gpu), attention_kernel(after, gpu)
    return f"attention {after.attention} ({b}) instead of {before.attention} ({a})"
