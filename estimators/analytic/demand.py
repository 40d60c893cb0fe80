"""What a run would reserve if memory that has served tensors of one size never served those of another.

An allocator's blocks fit what is as large as they are; what a smaller tensor has left behind is of no use to a larger
one. So what is held beyond the live peak grows with how much the sizes of tensors differ between the moments of a step,
and this sum says how much that is: of each size the most that ever live at once, whether they meet the others or not.
It is a number to compare runs by, which `profiles.ranges` does, and no prediction: memory is shared all the same.
"""

from functools import lru_cache
from math import prod
from typing import NamedTuple

from estimators.analytic.attention import attention_kernel
from estimators.analytic.course import Course
from estimators.analytic.data_parallel import broadcast_copies
from estimators.analytic.evaluation import course_of_forward, evaluated, played_evaluation
from estimators.analytic.layout import Layout
from estimators.analytic.moments import ITERATIONS, Outliner
from estimators.analytic.parameters import shape_sizes
from estimators.analytic.resuming import copied_by_loader, file_bytes
from estimators.analytic.shadow.tape import Dims
from estimators.analytic.structure import symbol_sizes
from estimators.workload import Workload

Symbols = tuple[tuple[str, int], ...]
_AS_LARGE = {"last": "c"}
"""The last piece of a chunked loss finds what larger ones have left; by itself it would be small and large by turns."""


class Demand:
    """The demand of one configuration in batch after batch.

    Args:
        workload: the run; its batch matters to an evaluation only.
        outliner: of its moments.
    """

    def __init__(self, workload: Workload, outliner: Outliner) -> None:
        self._symbols = _of_model(workload)
        self._besides_bytes = _besides(workload, outliner)

    def of(self, course: Course) -> int:
        """Bytes in the batch of a course."""
        return _of_course(course, self._symbols) + self._besides_bytes


def _of_model(workload: Workload) -> Symbols:
    """Symbols behind which there is the same number in every batch: those of weights, and ranks of what is played."""
    sizes = symbol_sizes(workload)
    model = shape_sizes(workload.model).keys() | {"d/2", "d32"}
    if workload.method.parameterisation not in ("full", "galore"):
        model |= {"R"}
    return tuple((name, sizes[name]) for name in sizes if name in model or name.startswith("R "))


@lru_cache(maxsize=4096)
def _of_course(course: Course, symbols: Symbols) -> int:
    """Of forward and backward in one batch, for all runs that share them."""
    found, sizes = _largest(course.layout, symbols), course.sizes
    return sum([int(sizes[kind] * factor) for kind, factor in found.varying]) + found.bytes


class _Largest(NamedTuple):
    """Of forward and backward."""

    varying: list[tuple[int, float]]
    """Played kinds, one of each shape that a batch changes, and how often their bytes count."""
    bytes: int
    """Of all that no batch changes."""


@lru_cache(maxsize=512)
def _largest(layout: Layout, symbols: Symbols) -> _Largest:
    """Sizes that are the same in every batch count as one, whatever their symbols."""
    known = dict(symbols)
    sizes: dict[tuple[Dims, int], int] = {}
    size_of, kind_of = list[int](), dict[Dims, tuple[bool, int, int]]()
    for number, kind in enumerate(layout.played.kinds):
        varying = tuple(sorted(_AS_LARGE.get(dim, dim) for dim in kind.size.dims if dim not in known))
        fixed = prod([known[dim] for dim in kind.size.dims if dim in known]) * kind.size.itemsize
        size_of.append(sizes.setdefault((varying, fixed), len(sizes)))
        own = fixed * (layout.repetitions if kind.in_every_middle_layer else 1)
        found = (_AS_LARGE.keys().isdisjoint(kind.size.dims), own, number)
        kind_of[varying] = max(kind_of.get(varying, found), found)
    bytes_of: dict[Dims, int] = {}
    for (varying, fixed), most in zip(sizes, _most(layout, size_of), strict=True):
        bytes_of[varying] = bytes_of.get(varying, 0) + most * fixed
    constant = bytes_of.pop((), 0)
    kinds = ((kind_of[dims], nbytes) for dims, nbytes in bytes_of.items())
    return _Largest([(number, nbytes / own) for (_, own, number), nbytes in kinds], constant)


def _most(layout: Layout, size_of: list[int]) -> list[int]:
    """How many of each size live at once at most; what a repeated layer adds, it adds each time."""
    played = layout.played
    times = [layout.repetitions if kind.in_every_middle_layer else 1 for kind in played.kinds]
    counts = [0] * (max(size_of) + 1)
    most, before, inside, block = counts[:], counts[:], counts[:], 0

    def repeat() -> None:
        again = layout.blocks[block - 1].times - 1
        for size, count in enumerate(counts):
            growth = (count - before[size]) * again
            most[size] = max(most[size], inside[size] + max(growth, 0))
            counts[size] += growth

    for stretch in layout.stretches:
        if stretch.block != block:
            if block:
                repeat()
            block, before, inside = stretch.block, counts[:], counts[:]
        largest = inside if block else most
        for code in played.events[stretch.start : stretch.stop]:
            if code < 0:
                counts[size_of[-code - 1]] -= times[-code - 1]
                continue
            size = size_of[code - 1]
            count = counts[size] = counts[size] + times[code - 1]
            if count > largest[size]:
                largest[size] = count
    if block:
        repeat()
    return most


def _besides(workload: Workload, outliner: Outliner) -> int:
    """All that lives outside of forward and backward: what stays, steps, and what comes before, between and after."""
    stepping = outliner.stepping
    nbytes = outliner.held_bytes + stepping.states_bytes + _of_steps(outliner) + outliner.clipping_bytes
    if outliner.gathers:
        nbytes += stepping.accumulators_bytes
    if workload.resume == "device":
        loaded = file_bytes(stepping.groups, stepping.method) + copied_by_loader(stepping.groups, stepping.method)
        nbytes += loaded if outliner.per_layer else max(loaded - stepping.gradients_bytes, 0)  # of the same sizes
    if workload.data_parallel > 1:
        nbytes += outliner.buckets.first_bytes
        nbytes += sum(set(broadcast_copies(workload.model, workload.method, workload.precision)))
    return nbytes + (_of_evaluation(workload) if workload.eval_batch else 0)


def _of_steps(outliner: Outliner) -> int:
    """What refreshes and steps add to gradients and states; inside backward, of every size that a parameter has."""
    stepping = outliner.stepping
    if outliner.per_layer:
        layout = outliner.course.layout
        places = tuple(zip(layout.update_parts, layout.update_names, strict=True))
        updates = [stepping.update_bytes(iteration, places) for iteration in ITERATIONS]
        return sum({max(nbytes, 0) for moments in updates for totals in moments.values() for nbytes in totals})
    around, found = stepping.gradients_bytes + stepping.states_bytes, dict[str, int]()
    for addition in (addition for additions in stepping.whole.values() for addition in additions):
        added = max(addition.total_bytes - around, addition.by_category.get("temporaries", 0))
        found[addition.name] = max(found.get(addition.name, 0), added)
    return sum(found.values())


def _of_evaluation(workload: Workload) -> int:
    """Of each size in the forward the most that live at once; logits that are kept are another matter."""
    played, run = played_evaluation(workload, attention_kernel(workload, None)), evaluated(workload)
    changes, order = course_of_forward(played, symbol_sizes(run), run.model.num_hidden_layers)
    lives, most = dict[int, int](), dict[int, int]()
    for place in order:
        size = abs(changes[place])
        lives[size] = lives.get(size, 0) + (1 if changes[place] > 0 else -1)
        most[size] = max(most.get(size, 0), lives[size])
    return sum(size * count for size, count in most.items())
