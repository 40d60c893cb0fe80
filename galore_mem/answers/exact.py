"""A plan confirmed by the allocator's replica: the run's whole history, written from the closed form, and replayed."""

from dataclasses import replace
from functools import lru_cache
from math import ceil

from estimators.allocator.parse import parse_settings
from estimators.allocator.plain import plain_peaks
from estimators.allocator.replay import replay
from estimators.allocator.settings import DEFAULTS, EXPANDABLE, AllocatorSettings
from estimators.analytic.attention import attention_kernel
from estimators.analytic.bounds import Reach, context_range
from estimators.analytic.history import History, written_history
from estimators.footprint import Footprint, Term
from estimators.verdict import Fit, verdict_of
from estimators.workload import Workload
from profiles.errors import InputError
from profiles.gpus import Gpu
from profiles.ranges import Kind, exactness

_PLAIN = DEFAULTS, replace(EXPANDABLE, text="")
"""Settings under which histories without other streams need no whole replica."""
MOST_BYTES = 1 << 47
"""Of tensors: the replica's addresses end at 512 TiB."""
_REPLACED = ("segments", "fragmentation")
"""Terms of the closed form that the replica knows better."""


def confirmed(workload: Workload, footprint: Footprint, gpu: Gpu | None) -> Footprint:
    """The footprint with allocated and reserved bytes from the replica, under the run's own allocator settings.

    The bound adds the most by which such a figure was seen to fall short of a traced history's. For kinds of runs of
    which none was compared it is not below the closed form's bound either.

    Raises:
        InputError: the run's history cannot be written down, or its allocator settings do not parse.
    """
    _require_possible(footprint.peak_live_bytes)
    allocated, reserved = replayed_peaks(workload, gpu)
    live, kept = footprint.peak_live_bytes, tuple(term for term in footprint.terms if term.name not in _REPLACED)
    bound = live + sum(term.high_bytes for term in footprint.terms if term.name in _REPLACED)
    margin, reason = _margin(workload, gpu, reserved, bound)
    low, high = context_range(gpu)
    beyond = Term(
        name="blocks and segments", low_bytes=reserved - live, high_bytes=reserved - live + margin, reason=reason
    )
    return replace(
        footprint,
        terms=(beyond, *kept),
        peak_allocated_bytes=allocated,
        peak_reserved_bytes=reserved,
        process_bytes=reserved + (low + high) // 2,
        upper_bytes=reserved + margin + sum(term.high_bytes for term in kept),
    )


def confirmed_reach(workload: Workload, reach: Reach, gpu: Gpu | None) -> Reach:
    """The totals of `confirmed`, of a closed form's."""
    _require_possible(reach.live_bytes)
    _, reserved = replayed_peaks(workload, gpu)
    margin, _ = _margin(workload, gpu, reserved, reach.live_bytes + reach.loss_bytes)
    beyond = reach.upper_bytes - reach.reserved_bytes - reach.fragmentation_bytes
    return Reach(
        live_bytes=reach.live_bytes,
        reserved_bytes=reserved,
        process_bytes=reserved + reach.process_bytes - reach.reserved_bytes,
        upper_bytes=reserved + margin + beyond,
        fragmentation_bytes=margin,
    )


def _require_possible(live_bytes: int) -> None:
    if live_bytes > MOST_BYTES:
        size = f"{live_bytes / 2**40:,.0f} TiB"
        raise InputError(f"{size} of tensors cannot be replayed", "no allocator is asked for that", "ask for less")


def _margin(workload: Workload, gpu: Gpu | None, reserved: int, bound: int) -> tuple[int, str]:
    """By how much a replayed figure may fall short, and why; `bound` is what the closed form allows to be reserved."""
    is_expandable = parse_settings(workload.allocator_settings).expandable_segments
    seen = exactness(attention_kernel(workload, gpu), is_expandable=is_expandable)
    margin = ceil(reserved * seen.shortfall_pct / 100)
    if not is_compared(workload, gpu):
        reason = "by the allocator's replica; no run of this kind was compared, so the closed form's bound stands"
        return max(margin, bound - reserved), reason
    reason = f"by the allocator's replica; of {seen.rows} such figures none was more than {seen.shortfall_pct} % below"
    return margin, reason + " a traced one"


@lru_cache(maxsize=256)
def replayed_peaks(workload: Workload, gpu: Gpu | None) -> tuple[int, int]:
    """Allocated and reserved bytes at their peaks, when the run's written history is replayed.

    Raises:
        InputError: the history cannot be written down, or the run's allocator settings do not parse.
    """
    settings = parse_settings(workload.allocator_settings)
    return _peaks(_history(replace(workload, allocator_settings=""), gpu), settings)


@lru_cache(maxsize=4)
def _history(workload: Workload, gpu: Gpu | None) -> History:
    """Of runs that are replayed under other settings at once."""
    return written_history(workload, gpu)


def _peaks(history: History, settings: AllocatorSettings) -> tuple[int, int]:
    """Allocated and reserved bytes at their peaks."""
    under = replace(settings, text="")
    if under in _PLAIN and 0 not in history.codes:
        return plain_peaks(history.codes, history.sizes, history.sections, is_expandable=settings.expandable_segments)
    run = replay(history.events(), settings)
    return run.peak_allocated_bytes, run.peak_reserved_bytes


def kind_of(workload: Workload, kernel: str) -> Kind:
    """What decides whether such runs were compared."""
    method, batch = workload.method, workload.batch
    return Kind(
        family=workload.model.model_type,
        method=method.name,
        update=method.update,
        implementation=method.implementation,
        precision=workload.precision,
        checkpointing=workload.checkpointing,
        kernel=kernel,
        accumulates=batch.gradient_accumulation_steps > 1,
        chunked_tokens=batch.tokens if workload.loss == "chunked" else 0,
    )


def is_compared(workload: Workload, gpu: Gpu | None) -> bool:
    """Whether replays of such runs were compared with traced ones; where not, the closed form's bound stands.

    No run of the grid evaluates or empties the cache, and no trace resumes.
    """
    if workload.resume != "none" or workload.eval_batch or workload.empty_cache != "none":
        return False
    kernel, settings = attention_kernel(workload, gpu), workload.allocator_settings
    is_expandable = bool(settings) and parse_settings(settings).expandable_segments
    return exactness(kernel, is_expandable=is_expandable).covers(kind_of(workload, kernel))


def confirmed_fit(workload: Workload, fit: Fit) -> Fit:
    """The fit with a confirmed footprint; what fits beyond this very run stays the closed form's answer."""
    footprint, batch = confirmed(workload, fit.footprint, fit.gpu), workload.batch
    verdict = verdict_of(footprint, fit.usable_bytes)
    found = replace(fit, footprint=footprint, verdict=verdict)
    if verdict != "fits":
        return found
    return replace(
        found,
        max_sequence_length=max(fit.max_sequence_length, batch.sequence_length),
        max_micro_batch_size=max(fit.max_micro_batch_size, batch.micro_batch_size),
    )
