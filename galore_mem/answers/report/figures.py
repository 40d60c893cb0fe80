"""The numbers of the banner: four peaks against a card, and what they mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from estimators.analytic.bounds import context_range, scratch_terms
from estimators.workload import Workload
from galore_mem.answers.limits import smallest_card
from galore_mem.answers.names import Card
from galore_mem.answers.replay import DeviceReplay

VerdictKind = Literal["fits", "tight", "does-not-fit", "out-of-memory", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Four peaks, never mixed, and the parts between them."""

    live_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    context_low_bytes: int
    context_high_bytes: int
    scratch_bytes: int
    """What kernels may take that no recording of tensors sees; in the bound only."""
    recorded_reserved_bytes: int | None
    """What a real allocator held at most; None where none was recorded."""

    @property
    def process_bytes(self) -> int:
        """What nvidia-smi would show, with the middle of the context's range."""
        return self.reserved_bytes + (self.context_low_bytes + self.context_high_bytes) // 2

    @property
    def upper_bytes(self) -> int:
        """Upper bound of the process."""
        return self.reserved_bytes + self.scratch_bytes + self.context_high_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One card's answer."""

    kind: VerdictKind
    gpu: str
    usable_bytes: int | None
    headroom_bytes: int | None


def figures_of(
    replay: DeviceReplay,
    live_bytes: int,
    workload: Workload | None,
    cards: Sequence[Card],
    process_bytes: object = None,
) -> Figures:
    """The figures of one device; `process_bytes` is the driver's figure of the process, where that was measured."""
    low, high = context_range(cards[0].gpu if cards else None)
    scratch = 0
    reserved = max(replay.replayed.peak_reserved_bytes, replay.recorded_peak_bytes or 0)
    if type(process_bytes) is int and reserved <= process_bytes < 1 << 50:
        low = high = process_bytes - reserved
    elif workload is not None:
        terms = scratch_terms(workload.model, workload.method, workload.precision)
        scratch = sum(term.high_bytes for term in terms)
    run = replay.replayed
    return Figures(
        live_bytes=live_bytes,
        allocated_bytes=run.peak_allocated_bytes,
        reserved_bytes=run.peak_reserved_bytes,
        context_low_bytes=low,
        context_high_bytes=high,
        scratch_bytes=scratch,
        recorded_reserved_bytes=replay.recorded_peak_bytes,
    )


def verdicts_of(replay: DeviceReplay, figures: Figures, cards: Sequence[Card]) -> tuple[Verdict, ...]:
    """An out-of-memory first, then each card; without either, the smallest card that would do."""
    found: list[Verdict] = []
    if replay.replayed.oom is not None or any(mark.kind == "oom" for mark in replay.tape.marks):
        limit = replay.replayed.oom.limit_bytes if replay.replayed.oom else None
        found.append(Verdict(kind="out-of-memory", gpu="", usable_bytes=limit, headroom_bytes=None))
    for card in cards:
        usable = card.gpu.usable_bytes - card.other_use_bytes
        kind: VerdictKind = (
            "fits" if figures.upper_bytes <= usable else "tight" if figures.process_bytes <= usable else "does-not-fit"
        )
        found.append(
            Verdict(kind=kind, gpu=card.gpu.name, usable_bytes=usable, headroom_bytes=usable - figures.upper_bytes)
        )
    if not found:
        name = smallest_card(figures.reserved_bytes + figures.scratch_bytes) or ""
        found.append(Verdict(kind="unknown", gpu=name, usable_bytes=None, headroom_bytes=None))
    return tuple(found)
