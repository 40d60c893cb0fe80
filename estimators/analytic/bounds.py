"""From live bytes to what the process holds: central figures and upper bounds, each part named.

What every bound rests on:

- *segments*: the allocator takes memory in segments (2 MiB for small tensors, 20 MiB for those below 10 MiB, multiples
  of 2 MiB above). For what lives across steps the loss is computed from the tensors' sizes (`granularity`).
- *fragmentation*: what the blocks of short-lived tensors leave between them. No closed form knows how much, so the
  upper bound adds the most that was seen in replayed runs of the same kind, for as many tensors of as many sizes
  (`profiles.ranges`, `demand`, docs/accuracy.md). A trace through the allocator's replica decides.
- *unknown scratch*: what cuSOLVER takes and only a GPU can tell; bounded, in the upper bound only.
- *context*: the range seen for the class of card; its middle is central, its top is in the bound.
"""

from collections import Counter
from functools import lru_cache
from typing import NamedTuple

from estimators.analytic.buffers import buffers
from estimators.analytic.data_parallel import first_buckets
from estimators.analytic.parameters import lone, parameters_of
from estimators.analytic.states import as_stepped, group_states, master_weights, shared_states
from estimators.analytic.stepping import stepping_of
from estimators.analytic.tensors import rounded
from estimators.analytic.unknown_scratch import SvdTable, unknown_scratch
from estimators.footprint import Term
from estimators.workload import Method, Precision, Workload
from profiles.gpus import CONTEXTS, GIB, SMALL_WORKSPACE_BYTES, Gpu
from profiles.ranges import Range, range_for
from profiles.shapes import ModelShape

MIB = 2**20
SMALL_BYTES = MIB
"""Requests up to this come from 2 MiB segments (kSmallSize)."""
MIDDLE_BYTES = 10 * MIB
"""Larger requests get a segment of their own (kMinLargeAlloc); smaller ones share segments of `LARGE_SEGMENT_BYTES`."""
LARGE_SEGMENT_BYTES = 20 * MIB
SMALL_SEGMENT_BYTES = 2 * MIB
LARGE_ROUNDING_BYTES = 2 * MIB
DEFAULT_CONTEXT = CONTEXTS["consumer"]


Terms = tuple[Term, ...]


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


def persistent_sizes(
    model: ModelShape, method: Method, precision: Precision, buckets: tuple[int, ...] = ()
) -> dict[int, int]:
    """Tensors that live across steps, counted by size: weights, buffers, states, projectors, and buckets."""
    groups, sizes = parameters_of(model, method, precision), Counter(buckets)
    for group in groups:
        one = lone(group)
        sizes[group.nbytes] += group.count
        for entry in (*group_states(one, method), *master_weights(one, method)):
            sizes[entry.nbytes] += entry.count * group.count * (not entry.on_host)
    for entry in (*buffers(model), *shared_states(groups, method)):
        sizes[entry.nbytes] += entry.count * (not entry.on_host)
    return {nbytes: count for nbytes, count in sizes.items() if count}


def between_steps_bytes(workload: Workload) -> int:
    """Reserved bytes that an emptied cache leaves between steps: weights, states, workspaces, and gradients that live.

    Segments that small tensors of both kinds share are counted for each.
    """
    sizes = persistent_sizes(workload.model, workload.method, workload.precision, first_buckets(workload))
    groups = parameters_of(workload.model, workload.method, workload.precision)
    sizes[SMALL_WORKSPACE_BYTES] = sizes.get(SMALL_WORKSPACE_BYTES, 0) + 2
    if workload.zero_grad == "start" and workload.method.update == "whole" and not workload.frees_gradients:
        for group in groups:
            if group.trainable:
                nbytes = as_stepped(group, workload.method).nbytes
                sizes[nbytes] = sizes.get(nbytes, 0) + group.count
    return sum(rounded(nbytes) * count for nbytes, count in sizes.items()) + granularity(sizes)


class Reach(NamedTuple):
    """How far a process reaches, in totals only."""

    live_bytes: int
    reserved_bytes: int
    process_bytes: int
    upper_bytes: int
    fragmentation_bytes: int

    @property
    def loss_bytes(self) -> int:
        """What blocks and segments may take beyond live tensors: none of it is sure to be lost."""
        return self.reserved_bytes - self.live_bytes + self.fragmentation_bytes


class Margins(NamedTuple):
    """What lies between the live peak of a configuration and its bound, whatever the batch."""

    seen: Range
    """What was seen of runs of this kind."""
    states_bytes: int
    segments_bytes: int
    """What segments exceed the tensors by that live across steps."""
    scratch_bytes: int
    """The bound of unknown scratch, and of what NCCL holds."""
    context_bytes: tuple[int, int]
    """Least and most."""


def margins_of(workload: Workload, gpu: Gpu | None) -> Margins:
    """The margins of a workload on a card, or on a consumer card where `gpu` is None."""
    method, measured = workload.method, gpu.svd_scratch if gpu is not None else ()
    buckets = first_buckets(workload)  # later ones lie in their segments
    loss, scratch = _method_figures(workload.model, method, workload.precision, measured, buckets)
    scratch += sum(term.high_bytes for term in nccl_terms(workload))
    states = stepping_of(workload.model, method, workload.precision).states_bytes
    return Margins(seen_range(workload), states, loss, scratch, context_range(gpu))


def reach_within(margins: Margins, live_bytes: int, lasting_bytes: int, demand_bytes: int) -> Reach:
    """Reserved and process figures.

    Args:
        margins: of the configuration.
        live_bytes: the live peak.
        lasting_bytes: weights, buffers and states.
        demand_bytes: see `demand`.
    """
    seen, states, loss, scratch, (low, high) = margins
    reserved = live_bytes + loss
    fragmentation = seen.beyond_bytes(live_bytes, lasting_bytes, states, demand_bytes)
    return Reach(
        live_bytes=live_bytes,
        reserved_bytes=reserved,
        process_bytes=reserved + (low + high) // 2,
        upper_bytes=reserved + fragmentation + scratch + high,
        fragmentation_bytes=fragmentation,
    )


def seen_range(workload: Workload) -> Range:
    """What was seen of workloads of this kind."""
    return range_for(workload.method.update, workload.method.implementation, workload.checkpointing)


@lru_cache(maxsize=4096)
def _method_figures(
    model: ModelShape, method: Method, precision: Precision, measured: SvdTable, buckets: tuple[int, ...]
) -> tuple[int, int]:
    """Bytes lost in segments, and the bound of unknown scratch."""
    loss = granularity(persistent_sizes(model, method, precision, buckets))
    return loss, sum(term.high_bytes for term in scratch_terms(model, method, precision, measured))


@lru_cache(maxsize=4096)
def scratch_terms(model: ModelShape, method: Method, precision: Precision, measured: SvdTable = ()) -> Terms:
    """What a refresh may hold inside cuSOLVER, by `unknown_scratch`."""
    return unknown_scratch(parameters_of(model, method, precision), method, measured)


def terms_of(workload: Workload, reach: Reach, gpu: Gpu | None) -> Terms:
    """The distance from the live peak to the process and to its bound, part by part."""
    segments = reach.reserved_bytes - reach.live_bytes
    seen = seen_range(workload)
    low, high = context_range(gpu)
    return (
        Term(
            name="segments",
            low_bytes=segments,
            high_bytes=segments,
            reason="weights and states lie in segments of 2 MiB, 20 MiB or multiples of 2 MiB",
        ),
        Term(
            name="fragmentation",
            low_bytes=0,
            high_bytes=reach.fragmentation_bytes,
            reason=f"the most that {seen.rows} runs of this kind showed, for as many sizes of tensors",
        ),
        *scratch_terms(workload.model, workload.method, workload.precision, gpu.svd_scratch if gpu is not None else ()),
        *nccl_terms(workload),
        Term(
            name="context",
            low_bytes=(low + high) // 2,
            high_bytes=high,
            reason=gpu.context_source if gpu is not None else DEFAULT_CONTEXT[2],
        ),
    )


NCCL_HIGH_BYTES = 1_600_000_000
"""Of one communicator that has averaged something: the largest reading found (github.com/NVIDIA/nccl/issues/864);
544 MB were read for two A100 with NVLink and 688 MB for four (issue 964)."""


def nccl_terms(workload: Workload) -> Terms:
    """What NCCL holds outside of torch's allocator: known from readings of others only, and so in the bound alone.

    Its buffers grow with the number of channels, which it chooses by the links between GPUs: few over PCIe, up to 32
    over NVLink, each with buffers of `NCCL_BUFFSIZE` (4 MiB) and others for every neighbour (issues 986 and 1685).
    """
    if workload.data_parallel == 1:
        return ()
    reason = "NCCL's channels: unknown before it runs; 1.6 GB is the largest reading found of one communicator"
    return (Term(name="NCCL", low_bytes=0, high_bytes=NCCL_HIGH_BYTES, reason=reason),)


def context_range(gpu: Gpu | None) -> tuple[int, int]:
    """Least and most bytes of the CUDA context."""
    if gpu is None:
        return int(DEFAULT_CONTEXT[0] * GIB), int(DEFAULT_CONTEXT[1] * GIB)
    return gpu.context_low_bytes, gpu.context_high_bytes
