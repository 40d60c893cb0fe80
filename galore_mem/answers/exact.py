"""A plan confirmed by the allocator's replica: the run's whole history, written from the closed form, and replayed."""

from dataclasses import replace

from estimators.allocator.parse import parse_settings
from estimators.allocator.replay import replay
from estimators.analytic.bounds import context_range, scratch_terms
from estimators.analytic.history import history_of
from estimators.footprint import Footprint, Term
from estimators.verdict import Fit, verdict_of
from estimators.workload import Workload
from profiles.gpus import Gpu
from profiles.ranges import exactness

_REPLACED = ("segments", "fragmentation")
"""Terms of the closed form that the replica knows better."""


def confirmed(workload: Workload, footprint: Footprint, gpu: Gpu | None) -> Footprint:
    """The footprint with allocated and reserved bytes from the replica, under the run's own allocator settings.

    The bound adds the most by which such a figure was seen to fall short of a traced history's, but stays within the
    closed form's own bound, which no traced history exceeded either.

    Raises:
        InputError: the run's history cannot be written down, or its allocator settings do not parse.
    """
    run = replay(history_of(workload, gpu), parse_settings(workload.allocator_settings))
    reserved, seen = run.peak_reserved_bytes, exactness()
    bound = footprint.peak_live_bytes + sum(term.high_bytes for term in footprint.terms if term.name in _REPLACED)
    margin = max(0, min(int(reserved * seen.shortfall_pct / 100), bound - reserved))
    scratch = scratch_terms(workload.model, workload.method, workload.precision)
    low, high = context_range(gpu)
    beyond = Term(
        name="blocks and segments",
        low_bytes=reserved - footprint.peak_live_bytes,
        high_bytes=reserved - footprint.peak_live_bytes + margin,
        reason=f"by the allocator's replica; of {seen.rows} such figures none was more than {seen.shortfall_pct} % "
        "below a traced one; within the closed form's bound",
    )
    return replace(
        footprint,
        terms=(beyond, *(term for term in footprint.terms if term.name not in _REPLACED)),
        peak_allocated_bytes=run.peak_allocated_bytes,
        peak_reserved_bytes=reserved,
        process_bytes=reserved + (low + high) // 2,
        upper_bytes=reserved + margin + sum(term.high_bytes for term in scratch) + high,
    )


def confirmed_fit(workload: Workload, fit: Fit) -> Fit:
    """The fit with a confirmed footprint; longest sequence and largest batch stay the closed form's."""
    footprint = confirmed(workload, fit.footprint, fit.gpu)
    return replace(fit, footprint=footprint, verdict=verdict_of(footprint, fit.usable_bytes))
