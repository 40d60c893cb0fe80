"""Which configuration to take, and the one change that would help it most."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from estimators.analytic.estimate import reach
from estimators.analytic.families import takes_chunked_loss
from estimators.verdict import Fit, judge
from estimators.workload import Workload
from galore_mem.answers.settings import default_rank, means_something
from profiles.errors import InputError

FAITHFULNESS = (
    "adamw",
    "adamw-8bit",
    "paged-adamw-8bit",
    "paged-adamw-32bit",
    "offload-adamw",
    "galore-adamw",
    "galore-adamw-8bit",
    "galore-adafactor",
    "adafactor",
    "sgd-momentum",
    "sgd",
    "low-rank",
    "relora",
    "lora",
    "qlora",
)
"""Methods from nearest to full AdamW to those that train the fewest weights: of what fits, the first is recommended.

What waits for the bus comes after what does the same on the card.
"""
_HALF_THE_BITS = {"adamw": "adamw-8bit", "galore-adamw": "galore-adamw-8bit"}
_PROJECTED = {"adamw": "galore-adamw", "adamw-8bit": "galore-adamw-8bit", "adafactor": "galore-adafactor"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Another workload, estimated like any other."""

    options: str
    """What to type."""
    workload: Workload
    fit: Fit
    saved_bytes: int
    """How much lower the upper bound is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The configuration to take on the first card that one fits, or the nearest one where none fits."""

    index: int
    """Which plan."""
    workload: Workload
    fit: Fit
    change: Change | None
    """The largest saving among the alternatives that were estimated; None where nothing saves."""

    def to_dict(self) -> dict[str, Any]:
        """The `advice` object of the JSON output."""
        change = self.change and {
            "options": self.change.options,
            "saved_bytes": self.change.saved_bytes,
            "upper_bytes": self.change.fit.upper_bytes,
            "verdict": self.change.fit.verdict,
            "max_sequence_length": self.change.fit.max_sequence_length,
            "max_micro_batch_size": self.change.fit.max_micro_batch_size,
        }
        return {"plan": self.index, "gpu": self.fit.gpu.name, "verdict": self.fit.verdict, "change": change}


def advise(fits: Sequence[Fit], workloads: Sequence[Workload], other_use_bytes: int) -> Advice:
    """Of the configurations that fit, the most faithful to full AdamW; of those that do not, the nearest.

    Args:
        fits: of one card, one per workload.
        workloads: in the same order; a change that leads to one of them is no news.
        other_use_bytes: memory that other processes take.
    """

    def rank(index: int) -> tuple[int, int, int]:
        verdict = ("fits", "tight", "does-not-fit").index(fits[index].verdict)
        method = workloads[index].method
        faithful = FAITHFULNESS.index(method.name) * 2 + (method.update == "per-layer") if verdict < 2 else 0
        return verdict, faithful, fits[index].upper_bytes

    index = min(range(len(fits)), key=rank)
    fit, workload = fits[index], workloads[index]
    change = _best_change(workload, fit, workloads, other_use_bytes)
    return Advice(index=index, workload=workload, fit=fit, change=change)


def _best_change(workload: Workload, fit: Fit, known: Sequence[Workload], other_use_bytes: int) -> Change | None:
    found: list[tuple[int, str, Workload]] = []
    for options, other in alternatives(workload, fits=fit.verdict == "fits"):
        if other not in known:
            with suppress(InputError):  # a change may lead to what the card cannot run
                found.append((reach(other, fit.gpu).upper_bytes, options, other))
    if not found:
        return None
    upper_bytes, options, other = min(found, key=lambda change: change[0])
    if upper_bytes >= fit.upper_bytes:
        return None
    return Change(
        options=options,
        workload=other,
        fit=judge(other, fit.gpu, other_use_bytes=other_use_bytes),
        saved_bytes=fit.upper_bytes - upper_bytes,
    )


def alternatives(workload: Workload, *, fits: bool) -> Iterator[tuple[str, Workload]]:
    """Single changes that may lower the peak, each as what to type and the workload that it gives.

    A shorter sequence is offered only where the one that was asked for does not fit.
    """
    method, batch = workload.method, workload.batch
    if workload.checkpointing == "none":
        yield "--checkpointing full", replace(workload, checkpointing="full")
    if workload.loss == "full" and takes_chunked_loss(workload.model):
        yield "--loss chunked", replace(workload, loss="chunked")
    may_step_apart = method.states_on != "host" and not method.master_weights
    if method.update == "whole" and batch.gradient_accumulation_steps == 1 and may_step_apart:
        yield "--update per-layer", replace(workload, method=replace(method, update="per-layer"))
    if method.name in _HALF_THE_BITS:
        name = _HALF_THE_BITS[method.name]
        yield f"--method {name}", replace(workload, method=replace(method, name=name, master_weights=False))
    if method.name in _PROJECTED:
        name = _PROJECTED[method.name]
        projected = replace(method, name=name, rank=default_rank(name, workload.model), master_weights=False)
        yield f"--method {name}", replace(workload, method=projected)
    if method.rank is not None and method.rank > 1:
        yield f"--rank {method.rank // 2}", replace(workload, method=replace(method, rank=method.rank // 2))
    if means_something("optimizer_kernel", method.name) and method.kernel == "foreach":
        yield "--optimizer-kernel fused", replace(workload, method=replace(method, optimizer_kernel="fused"))
    if method.master_weights:
        yield "no --master-weights", replace(workload, method=replace(method, master_weights=False))
    if method.implementation == "galore-torch":
        yield "--implementation galore-mem", replace(workload, method=replace(method, implementation="galore-mem"))
    if workload.precision != "bf16":
        yield "--precision bf16", replace(workload, precision="bf16")
    if workload.attention in ("math", "eager"):
        yield "--attention auto", replace(workload, attention="auto")
    if batch.micro_batch_size > 1 and method.update == "whole":
        steps = batch.gradient_accumulation_steps * batch.micro_batch_size
        smaller = replace(batch, micro_batch_size=1, gradient_accumulation_steps=steps)
        yield f"--batch 1 --grad-accumulation {steps}", replace(workload, batch=smaller)
    if batch.sequence_length > 1 and not fits:
        shorter = replace(batch, sequence_length=batch.sequence_length // 2)
        yield f"--seq {batch.sequence_length // 2}", replace(workload, batch=shorter)
    if workload.keep_outputs:
        yield "no --keep-outputs", replace(workload, keep_outputs=False)
    if workload.resume == "device":
        yield "--resume cpu", replace(workload, resume="cpu")
    if workload.eval_keep:
        yield "no --eval-keep", replace(workload, eval_keep=None)
    if workload.eval_batch is not None and workload.eval_batch > 1:
        yield f"--eval-batch {workload.eval_batch // 2}", replace(workload, eval_batch=workload.eval_batch // 2)
    if workload.use_cache:
        yield "no --use-cache", replace(workload, use_cache=False)
    if workload.zero_grad == "end":
        yield "--zero-grad start", replace(workload, zero_grad="start")
