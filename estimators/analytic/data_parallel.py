"""What data-parallel training holds besides: buckets of gradients, and the copies that are broadcast at the start.

torch's DistributedDataParallel keeps flat storages, called buckets, into which gradients are copied to be averaged
over all GPUs (torch/csrc/distributed/c10d/reducer.cpp). They are made when the model is wrapped and live for good.
There is one for each dtype first; before the second forward they die and are made anew in the order in which gradients
came, `bucket_cap_mb` each. With `gradient_as_bucket_view` a gradient dies as soon as it has been copied, and
`parameter.grad` is a view of its bucket.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from estimators.analytic.buffers import buffers
from estimators.analytic.layout import Layout
from estimators.analytic.parameters import ParameterGroup, parameters_of
from estimators.analytic.step_history import in_model_order
from estimators.analytic.tensors import Tensors, rounded
from estimators.workload import Method, Precision, Workload
from profiles.shapes import ModelShape

MIB = 2**20
FIRST_BUCKET_BYTES = MIB
"""`_DEFAULT_FIRST_BUCKET_BYTES`: the first is small, so that averaging starts early, unless a cap is given."""
BUCKET_CAP_MB = 25
BROADCAST_BYTES = 250 * MIB
"""`broadcast_bucket_size`."""
BROADCASTS_IN_FLIGHT = 2
"""Flat copies that live together (c10d/comm.cpp, `max_in_flight`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    """Sizes of all buckets of one GPU, in bytes, as requested."""

    first: tuple[int, ...]
    """From the wrapping of the model to the second forward."""
    rebuilt: tuple[int, ...]
    """From then on."""

    @property
    def first_bytes(self) -> int:
        """Live bytes, each rounded to 512."""
        return sum(map(rounded, self.first))

    @property
    def rebuilt_bytes(self) -> int:
        """Live bytes, each rounded to 512."""
        return sum(map(rounded, self.rebuilt))


NO_BUCKETS = Buckets(first=(), rebuilt=())


def bucket_limits(bucket_cap_mb: int | None) -> tuple[int, ...]:
    """Bytes from which on the first, and every later bucket is full."""
    if bucket_cap_mb is None:
        return FIRST_BUCKET_BYTES, BUCKET_CAP_MB * MIB
    return (bucket_cap_mb * MIB,)


def assigned(tensors: Iterable[tuple[int, int]], limits: Sequence[int]) -> list[list[int]]:
    """Which tensors share a bucket: torch's `compute_bucket_assignment_by_size`.

    Args:
        tensors: of each, its bytes and its bytes per element, which stand for its dtype.
        limits: a bucket is closed when it reaches its own; the last limit is that of all later ones.

    Returns:
        Numbers of tensors, bucket by bucket: full ones as they filled, then the rest of each dtype.
    """
    closed: list[list[int]] = []
    filling: dict[int, list[int]] = {}
    sizes: dict[int, int] = {}
    turns: dict[int, int] = {}
    for number, (nbytes, itemsize) in enumerate(tensors):
        filling.setdefault(itemsize, []).append(number)
        sizes[itemsize] = sizes.get(itemsize, 0) + nbytes
        turn = turns.get(itemsize, 0)
        if sizes[itemsize] >= limits[turn]:
            closed.append(filling.pop(itemsize))
            del sizes[itemsize]
            turns[itemsize] = min(turn + 1, len(limits) - 1)
    return [*closed, *filling.values()]


def buckets_of(workload: Workload, layout: Layout) -> Buckets:
    """The buckets of a workload; none on one GPU.

    Args:
        workload: the run.
        layout: its played step, which knows the order of gradients.
    """
    if workload.data_parallel == 1:
        return NO_BUCKETS
    model, method, cap = workload.model, workload.method, workload.bucket_cap_mb
    return _buckets(model, method, workload.precision, cap, layout)


@lru_cache(maxsize=1024)
def _buckets(model: ModelShape, method: Method, precision: Precision, cap: int | None, layout: Layout) -> Buckets:
    groups = {group.name: group for group in parameters_of(model, method, precision)}
    ready = _biases_first([groups[name] for name in gradients_in_order(layout)])
    parts = assigned(_sizes(ready), bucket_limits(cap))
    rebuilt = tuple(sum(ready[number].nbytes for number in part) for part in parts)
    return Buckets(first=_first_buckets(model, method, precision), rebuilt=rebuilt)


def first_buckets(workload: Workload) -> tuple[int, ...]:
    """Bytes of the buckets before they are rebuilt: one for each dtype of gradients."""
    if workload.data_parallel == 1:
        return ()
    return _first_buckets(workload.model, workload.method, workload.precision)


@lru_cache(maxsize=1024)
def _first_buckets(model: ModelShape, method: Method, precision: Precision) -> tuple[int, ...]:
    whole: dict[int, int] = {}
    for group in parameters_of(model, method, precision):
        if group.trainable:
            whole[group.itemsize] = whole.get(group.itemsize, 0) + group.nbytes * group.count
    return tuple(whole.values())


def _biases_first(ready: list[ParameterGroup]) -> list[ParameterGroup]:
    """A product's bias is its first operand (`addmm`), whose gradient autograd accumulates before the weight's."""
    for place, (first, second) in enumerate(pairwise(ready)):
        of_one = first.name.rpartition(".")[0] == second.name.rpartition(".")[0]
        if of_one and first.kind in ("linear", "head") and second.kind == "bias":
            ready[place : place + 2] = [second, first]
    return ready


def _sizes(groups: Iterable[ParameterGroup]) -> list[tuple[int, int]]:
    return [(group.nbytes, group.itemsize) for group in groups]


def gradients_in_order(layout: Layout) -> Iterator[str]:
    """The group of each gradient as backward completes it, every layer's own."""
    stretches = layout.stretches
    index = 0
    while index < len(stretches):
        block = stretches[index].block
        stop, times = (layout.blocks[block - 1].last + 1, layout.blocks[block - 1].times) if block else (index + 1, 1)
        yield from [stretch.gradient for stretch in stretches[index:stop] if stretch.steps] * times
        index = stop


@lru_cache(maxsize=1024)
def broadcast_copies(model: ModelShape, method: Method, precision: Precision) -> tuple[int, ...]:
    """Flat copies of weights and buffers that DDP broadcasts when it is built, in order; a lone tensor needs none."""
    parameters = [group for group in parameters_of(model, method, precision) if group.kind != "quantisation"]
    groups = _adapters_last(group for group, _ in in_model_order(parameters))
    tensors = [*_sizes(groups), *(pair for buffer in buffers(model) for pair in [_of_dtype(buffer)] * buffer.count)]
    parts = sorted(assigned(tensors, (BROADCAST_BYTES,)), key=min)
    return tuple(sum(tensors[number][0] for number in part) if len(part) > 1 else 0 for part in parts)


def _adapters_last(groups: Iterable[ParameterGroup]) -> list[ParameterGroup]:
    """As peft registers them: a layer's weight and bias, then its adapters."""
    found: list[ParameterGroup] = []
    held: list[ParameterGroup] = []
    for group in groups:
        if group.kind == "adapter":
            held.append(group)
            continue
        if group.kind != "bias":
            found += held
            held.clear()
        found.append(group)
    return [*found, *held]


def _of_dtype(buffer: Tensors) -> tuple[int, int]:
    """Bytes of a buffer and of its elements: ids are int64, rotary frequencies fp32."""
    return buffer.nbytes, 8 if buffer.name.endswith("_ids") else 4


def broadcast_bytes(workload: Workload) -> int:
    """The most that these copies hold together: while one is made, the one before still lives."""
    if workload.data_parallel == 1:
        return 0
    sizes = broadcast_copies(workload.model, workload.method, workload.precision)
    live = [rounded(nbytes) for nbytes in sizes]
    return max([*live, *(before + after for before, after in pairwise(live))], default=0)
