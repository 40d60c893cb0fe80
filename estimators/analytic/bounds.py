"""From live bytes to what the process holds: central figures and upper bounds, each part named.

What every bound rests on:

- *segments*: the allocator takes memory in segments (2 MiB for small tensors, 20 MiB for those below 10 MiB, multiples
  of 2 MiB above). For what lives across steps the loss is computed from the tensors' sizes (`granularity`).
- *fragmentation*: what the blocks of short-lived tensors leave between them. Small models were seen to reserve 1 to
  16 % more than they allocate; no closed form knows the share, so the upper bound adds 16 % of the bytes that come and
  go within a step, which is deliberately wide for large models. A trace through the allocator's replica decides.
- *unknown scratch*: what cuSOLVER takes and only a GPU can tell; bounded, in the upper bound only.
- *context*: the range seen for the class of card; its middle is central, its top is in the bound.
"""

from dataclasses import dataclass

from estimators.analytic.buffers import buffers
from estimators.analytic.parameters import workload_parameters
from estimators.analytic.states import group_states, shared_states
from estimators.analytic.tensors import Tensors, rounded
from estimators.footprint import Moment, Term
from estimators.workload import Workload
from profiles.gpus import CONTEXTS, GIB, Gpu

MIB = 2**20
SMALL_BYTES = MIB
"""Requests up to this come from 2 MiB segments (kSmallSize)."""
MIDDLE_BYTES = 10 * MIB
"""Larger requests get a segment of their own (kMinLargeAlloc); smaller ones share segments of `LARGE_SEGMENT_BYTES`."""
LARGE_SEGMENT_BYTES = 20 * MIB
SMALL_SEGMENT_BYTES = 2 * MIB
LARGE_ROUNDING_BYTES = 2 * MIB
FRAGMENTATION_PCT = 16
"""The largest share of reserved over allocated bytes seen on small models."""
DEFAULT_CONTEXT = CONTEXTS["consumer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """The figures beside the live peak, and how they come about."""

    allocated_bytes: int
    reserved_bytes: int
    process_bytes: int
    upper_bytes: int
    terms: tuple[Term, ...]


def granularity(sizes: dict[int, int]) -> int:
    """Bytes by which segments exceed the tensors that live in them across steps.

    Args:
        sizes: number of tensors by size in bytes.
    """
    small = middle = loss = 0
    for nbytes, count in sizes.items():
        size = rounded(nbytes)
        if size <= SMALL_BYTES:
            small += size * count
        elif size < MIDDLE_BYTES:
            fitting = LARGE_SEGMENT_BYTES // size
            middle += count % fitting * size
            loss += count // fitting * (LARGE_SEGMENT_BYTES - fitting * size)
        else:
            loss += count * (-size % LARGE_ROUNDING_BYTES)
    return loss + -small % SMALL_SEGMENT_BYTES + -middle % LARGE_SEGMENT_BYTES


def persistent_sizes(workload: Workload) -> dict[int, int]:
    """Tensors that live across steps, counted by size: weights, buffers, states and projectors."""
    groups, method = workload_parameters(workload), workload.method
    tensors: list[Tensors] = [Tensors(name=group.name, nbytes=group.nbytes, count=group.count) for group in groups]
    tensors += buffers(workload.model)
    tensors += [state for group in groups for state in group_states(group, method)]
    tensors += shared_states(groups, method)
    sizes: dict[int, int] = {}
    for entry in tensors:
        if not entry.on_host:
            sizes[entry.nbytes] = sizes.get(entry.nbytes, 0) + entry.count
    return sizes


def peaks_of(workload: Workload, moments: tuple[Moment, ...], gpu: Gpu | None, scratch: tuple[Term, ...]) -> Peaks:
    """Allocated, reserved and process figures for the moments of a workload on a card."""
    peak = max(moments, key=lambda moment: moment.live_bytes)
    live = peak.live_bytes
    lasting = sum(peak.by_category.get(name, 0) for name in ("weights", "buffers", "optimizer_states", "projectors"))
    segments = granularity(persistent_sizes(workload))
    moving = max(moment.live_bytes for moment in moments) - lasting
    terms = (
        Term(
            name="segments",
            low_bytes=segments,
            high_bytes=segments,
            reason="weights and states in segments of 2 MiB, 20 MiB or multiples of 2 MiB",
        ),
        Term(
            name="fragmentation",
            low_bytes=0,
            high_bytes=moving * FRAGMENTATION_PCT // 100 + LARGE_SEGMENT_BYTES,
            reason=f"up to {FRAGMENTATION_PCT} % of what comes and goes within a step, and one segment",
        ),
        *_scratch_terms(moments, live, scratch),
        _context(gpu),
    )
    reserved = live + segments
    return Peaks(
        allocated_bytes=live,
        reserved_bytes=reserved,
        process_bytes=live + sum(term.low_bytes for term in terms),
        upper_bytes=live + sum(term.high_bytes for term in terms),
        terms=terms,
    )


def _scratch_terms(moments: tuple[Moment, ...], live: int, scratch: tuple[Term, ...]) -> list[Term]:
    """Unknown scratch counts as far as it lifts its own phase above the peak."""
    refresh = max((moment.live_bytes for moment in moments if moment.name == "refresh"), default=None)
    if refresh is None:
        return []
    out, reached = [], refresh
    for term in scratch:
        before = max(reached, live)
        reached += term.high_bytes
        out.append(Term(name=term.name, low_bytes=0, high_bytes=max(reached, live) - before, reason=term.reason))
    return out


def _context(gpu: Gpu | None) -> Term:
    if gpu is None:
        low, high, reason = int(DEFAULT_CONTEXT[0] * GIB), int(DEFAULT_CONTEXT[1] * GIB), DEFAULT_CONTEXT[2]
    else:
        low, high, reason = gpu.context_low_bytes, gpu.context_high_bytes, gpu.context_source
    return Term(name="context", low_bytes=(low + high) // 2, high_bytes=high, reason=reason)
