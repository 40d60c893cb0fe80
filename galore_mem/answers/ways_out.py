"""The cheapest change, or the fewest changes, that make a run fit a card."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from estimators.analytic.estimate import reach
from estimators.verdict import Fit, judge
from estimators.workload import Workload
from galore_mem.answers.advice import alternatives
from profiles.errors import InputError
from profiles.gpus import Gpu

COSTS: tuple[tuple[str, str], ...] = (
    ("no --keep-outputs", "costs nothing: drop the model's outputs before backward"),
    ("no --use-cache", "costs nothing: training has no use for the cache"),
    ("--zero-grad start", "costs nothing: zero_grad(set_to_none=True) before the forward"),
    ("--optimizer-kernel fused", "costs nothing: AdamW(fused=True)"),
    ("--implementation galore-mem", "costs nothing: the same algorithm with less scratch"),
    ("--resume cpu", 'costs nothing: torch.load(path, map_location="cpu")'),
    ("--attention auto", "costs nothing: the kernel that torch would choose"),
    ("no --eval-keep", "no metric over all logits: preprocess_logits_for_metrics, or batch_eval_metrics"),
    ("--eval-batch", "evaluation in smaller batches"),
    ("--loss chunked", "head and loss are computed twice, the model once"),
    ("--update per-layer", "no gradient of the whole model to clip; each parameter steps alone"),
    ("--batch 1", "the same tokens a step in smaller products, which a GPU runs less well"),
    ("--checkpointing full", "one more forward: about a third more computing"),
    ("--method adamw-8bit", "optimizer states in 8 bits"),
    ("--method galore-adamw-8bit", "optimizer states in 8 bits, and low-rank where they were not"),
    ("no --master-weights", "small updates of bf16 weights are rounded away"),
    ("--precision bf16", "weights and states in bf16: small updates are rounded away"),
    ("--method galore-adamw", "states live in a low-rank subspace: another optimizer"),
    ("--method galore-adafactor", "states live in a low-rank subspace: another optimizer"),
    ("--rank", "a smaller subspace"),
    ("--seq", "shorter sequences: other data"),
)
"""Changes from the cheapest on, by what they begin with, and what each costs. A third: backward is two forwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One or more changes, and what becomes of the run."""

    changes: tuple[str, ...]
    """What to type, in the order of cost."""
    costs: tuple[str, ...]
    workload: Workload
    fit: Fit
    saved_bytes: int
    """How much lower the upper bound is."""

    def to_dict(self) -> dict[str, Any]:
        """An entry of `ways_out` in the JSON output."""
        return {
            "changes": list(self.changes),
            "costs": list(self.costs),
            "saved_bytes": self.saved_bytes,
            "upper_bytes": self.fit.upper_bytes,
            "verdict": self.fit.verdict,
        }


def cost_of(options: str) -> tuple[int, str]:
    """Rank and description of what a change costs; the longest beginning wins."""
    rows = [(rank, start, words) for rank, (start, words) in enumerate(COSTS) if options.startswith(start)]
    rank, _, words = max(rows, key=lambda row: len(row[1]), default=(len(COSTS), "", ""))
    return rank, words


def ways_out(workload: Workload, gpu: Gpu, *, other_use_bytes: int = 0) -> tuple[Way, ...]:
    """Ways to make a run fit: each single change that suffices, cheapest first; if none does, several together.

    Several are found by making, one after another, the cheapest changes that lower the bound; those that turn out not
    to be needed are then left out again.

    Returns:
        Nothing where no change that is known here makes it fit.
    """
    usable = gpu.usable_bytes - other_use_bytes
    start = reach(workload, gpu).upper_bytes
    singles = sorted(_changes(workload, gpu), key=lambda change: cost_of(change[0])[0])
    chosen = [((options,), other) for options, other, bound in singles if bound <= usable]
    if not chosen:
        together = _together(workload, gpu, usable)
        return (_way(*together, gpu, other_use_bytes, start),) if together else ()
    return tuple(_way(changes, other, gpu, other_use_bytes, start) for changes, other in chosen)


def _changes(workload: Workload, gpu: Gpu) -> list[tuple[str, Workload, int]]:
    found = []
    for options, other in alternatives(workload, fits=False):
        with suppress(InputError):  # a change may lead to what the card cannot run
            found.append((options, other, reach(other, gpu).upper_bytes))
    return found


def _together(workload: Workload, gpu: Gpu, usable_bytes: int) -> tuple[tuple[str, ...], Workload] | None:
    """Changes that suffice together, cheapest first and none more than once."""
    made: list[str] = []
    current = workload
    bound = reach(workload, gpu).upper_bytes
    while bound > usable_bytes:
        helpful = [change for change in _changes(current, gpu) if change[2] < bound and change[0] not in made]
        if not helpful:
            return None
        options, current, bound = min(helpful, key=lambda change: cost_of(change[0])[0])
        made.append(options)
    for options in reversed(made[:-1]):
        fewer = [other for other in made if other != options]
        without = _made(workload, gpu, fewer)
        if without is not None and reach(without, gpu).upper_bytes <= usable_bytes:
            made, current = fewer, without
    return tuple(made), current


def _made(workload: Workload, gpu: Gpu, changes: Sequence[str]) -> Workload | None:
    """The workload after these changes; None where one of them is not on offer then."""
    for options in changes:
        offered = {found: other for found, other, _ in _changes(workload, gpu)}
        if options not in offered:
            return None
        workload = offered[options]
    return workload


def _way(changes: Sequence[str], workload: Workload, gpu: Gpu, other_use_bytes: int, start_bytes: int) -> Way:
    fit = judge(workload, gpu, other_use_bytes=other_use_bytes)
    return Way(
        changes=tuple(changes),
        costs=tuple(cost_of(change)[1] for change in changes),
        workload=workload,
        fit=fit,
        saved_bytes=start_bytes - fit.upper_bytes,
    )
