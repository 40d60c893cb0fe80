"""Which configuration to take, and the change that would help it at the least cost."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from estimators.verdict import Fit, judge
from estimators.workload import Workload
from galore_mem.answers.changes import in_order, offers
from galore_mem.answers.ways_out import Way, first_way_out, way_by
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
NOTABLE_SHARE = 0.01
"""Of the bound: what a change must take off a run that fits to be worth naming."""
NOTABLE_LENGTH = 0.05
"""Of the longest sequence: what a change must add to it, unless it adds to the largest micro-batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The configuration to take on the first card that one fits, or the nearest one where none fits."""

    index: int
    """Which plan."""
    workload: Workload
    fit: Fit
    change: Way | None
    """The cheapest that makes it fit, or that gives a run that fits more room; where nothing makes it fit, the one that
    saves most; None where nothing saves."""
    replayed: Fit | None = None
    """What the allocator's replica says of a run that only the bound keeps from fitting; None for all others, and where
    no history can be written."""

    def to_dict(self) -> dict[str, Any]:
        """The `advice` object of the JSON output."""
        change = self.change and {
            "options": " ".join(self.change.changes),
            "changes": list(self.change.changes),
            "costs": list(self.change.costs),
            "saved_bytes": self.change.saved_bytes,
            "upper_bytes": self.change.fit.upper_bytes,
            "verdict": self.change.fit.verdict,
            "max_sequence_length": self.change.fit.max_sequence_length,
            "max_micro_batch_size": self.change.fit.max_micro_batch_size,
        }
        replayed = self.replayed and {
            "process_bytes": self.replayed.process_bytes,
            "upper_bytes": self.replayed.upper_bytes,
            "verdict": self.replayed.verdict,
        }
        found = {"plan": self.index, "gpu": self.fit.gpu.name, "verdict": self.fit.verdict}
        return found | {"change": change, "replayed": replayed}


def advise(fits: Sequence[Fit], workloads: Sequence[Workload], other_use_bytes: int, *, exact: bool = False) -> Advice:
    """Of the configurations that fit, the most faithful to full AdamW; of those that do not, the nearest.

    Args:
        fits: of one card, one per workload.
        workloads: in the same order; a change that leads to one of them is no news.
        other_use_bytes: memory that other processes take.
        exact: the fits were confirmed by the allocator's replica, so that the change is, too. It is chosen by the
            closed form, like against like.
    """

    def rank(index: int) -> tuple[int, int, int]:
        verdict = ("fits", "tight", "does-not-fit").index(fits[index].verdict)
        method = workloads[index].method
        faithful = FAITHFULNESS.index(method.name) * 2 + (method.update == "per-layer") if verdict < 2 else 0
        return verdict, faithful, fits[index].upper_bytes

    index = min(range(len(fits)), key=rank)
    fit, workload = fits[index], workloads[index]
    closed = judge(workload, fit.gpu, other_use_bytes=other_use_bytes).footprint if exact else fit.footprint
    change = _best_change(workload, replace(fit, footprint=closed), workloads, other_use_bytes)
    if exact and change is not None:
        change = _confirmed(change, fit)
    return Advice(index=index, workload=workload, fit=fit, change=change)


def settled(advice: Advice) -> Advice:
    """The advice with a replay of the run where its bound alone leaves the answer open."""
    from galore_mem.answers.exact import confirmed_fit

    if advice.fit.verdict != "tight":
        return advice
    with suppress(InputError):  # no history can be written for it
        return replace(advice, replayed=confirmed_fit(advice.workload, advice.fit))
    return advice


def _best_change(workload: Workload, fit: Fit, known: Sequence[Workload], other_use_bytes: int) -> Way | None:
    fits = fit.verdict == "fits"
    singles = offers(workload, fit.gpu, fits=fits)
    if not fits:
        way = first_way_out(workload, fit.gpu, singles, other_use_bytes=other_use_bytes)
        if way is not None:
            return way
    news = [offer for offer in singles if offer.workload not in known]
    enough_bytes = round(fit.upper_bytes * (1 - NOTABLE_SHARE)) if fits else fit.usable_bytes
    helpful = [offer for offer in in_order(news, enough_bytes) if offer.upper_bytes < fit.upper_bytes]
    ways = (way_by(offer, fit.upper_bytes, fit.gpu, other_use_bytes=other_use_bytes) for offer in helpful)
    return next((way for way in ways if not fits or _reaches_further(way.fit, fit)), None)


def _confirmed(change: Way, before: Fit) -> Way | None:
    """The change with its replayed footprint, beside that of the run; None where nothing is left of what it saves."""
    from galore_mem.answers.exact import confirmed_fit

    try:
        fit = confirmed_fit(change.workload, change.fit)
    except InputError:  # no history can be written for it: both figures of the closed form stand
        return change
    saved_bytes = before.upper_bytes - fit.upper_bytes
    return replace(change, fit=fit, saved_bytes=saved_bytes) if saved_bytes > 0 else None


def _reaches_further(fit: Fit, other: Fit) -> bool:
    """Lower bytes of this step alone are no room: a longer sequence or a larger micro-batch may end elsewhere."""
    longer = fit.max_sequence_length > (1 + NOTABLE_LENGTH) * other.max_sequence_length
    return longer or fit.max_micro_batch_size > other.max_micro_batch_size
