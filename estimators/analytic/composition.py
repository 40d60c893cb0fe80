"""Everything that is alive at one moment, tensor by tensor: the rows behind a moment's categories."""

from collections.abc import Iterator
from dataclasses import replace

from estimators.analytic.buffers import buffers
from estimators.analytic.estimate import outliner_of
from estimators.analytic.ledger import tensors_of
from estimators.analytic.moments import Outline, Outliner
from estimators.analytic.states import accumulated_gradients, group_states, master_weights, shared_states
from estimators.analytic.structure import symbol_sizes
from estimators.analytic.tensors import Tensors, rounded
from estimators.footprint import Moment
from estimators.workload import Workload
from profiles.gpus import Gpu


def composition(workload: Workload, moment: Moment, gpu: Gpu | None = None) -> tuple[Tensors, ...]:
    """Rows that add up to every category of a moment, in live bytes (each tensor rounded to 512 B).

    What a refresh or an optimizer step makes and drops again is one row for each category, since its tensors differ
    from parameter to parameter; so are states while they grow in a first per-layer iteration.

    Args:
        workload: the run.
        moment: one of its estimate's moments.
        gpu: the card that was estimated for.

    Raises:
        ValueError: the workload has no such moment.
    """
    outliner = outliner_of(workload, gpu)
    for outline in outliner.outlines():
        if (outline.iteration, outline.name) == (moment.iteration, moment.name):
            return _rows(workload, outliner, outline)
    raise ValueError(f"no moment {moment.label}")


def _rows(workload: Workload, outliner: Outliner, outline: Outline) -> tuple[Tensors, ...]:
    rows = [*_lasting(workload, outliner), *_buckets(outliner, outline), *_played(workload, outliner, outline)]
    if workload.method.master_weights and outline.phase == "step":
        rows = [replace(row, nbytes=2 * row.nbytes) if row.category == "gradients" else row for row in rows]
    left = dict(outline.moment(outliner.course).by_category)
    for row in rows:
        left[row.category] = left.get(row.category, 0) - row.live_bytes
    for whole in ([*_states(workload, outliner)], [*_gathered(workload, outliner)]):
        sums: dict[str, int] = {}
        for row in whole:
            sums[row.category] = sums.get(row.category, 0) + row.live_bytes
        if all(left.get(category, 0) >= nbytes for category, nbytes in sums.items()):
            rows += whole
            for category, nbytes in sums.items():
                left[category] -= nbytes
    for category, nbytes in left.items():
        if nbytes < 0:
            rows = _without(rows, category, -nbytes)
            left[category] = 0
    return (*rows, *_rest(outline, left))


def _without(rows: list[Tensors], category: str, nbytes: int) -> list[Tensors]:
    """Rows without what a step has already let go of: one gradient, or an unknown part of all of them."""
    for number, row in enumerate(rows):
        if row.category == category and rounded(row.nbytes) == nbytes:
            fewer = [replace(row, count=row.count - 1)] if row.count > 1 else []
            return [*rows[:number], *fewer, *rows[number + 1 :]]
    total = sum(row.live_bytes for row in rows if row.category == category)
    others = [row for row in rows if row.category != category]
    if total == nbytes:
        return others
    return [*others, Tensors(name=f"{category} that are left", nbytes=total - nbytes, category=category)]


def _lasting(workload: Workload, outliner: Outliner) -> Iterator[Tensors]:
    groups = outliner.stepping.groups
    for group in groups:
        shape = " x ".join(map(str, group.shape))
        yield Tensors(name=group.name, nbytes=group.nbytes, count=group.count, category="weights", formula=shape)
    yield from buffers(workload.model)
    for group in groups:
        for copy in master_weights(group, workload.method):
            yield replace(copy, name=f"{group.name}: {copy.name}")


def _gathered(workload: Workload, outliner: Outliner) -> Iterator[Tensors]:
    """Sums of gradients that passes of a per-layer update leave to the next; all of them live between two passes."""
    if workload.method.update == "per-layer" and workload.batch.gradient_accumulation_steps > 1:
        for group in outliner.stepping.groups:
            yield from accumulated_gradients(group, workload.method)


def _buckets(outliner: Outliner, outline: Outline) -> Iterator[Tensors]:
    """Storages in which data-parallel training averages gradients."""
    is_first, buckets = outline.iteration == "first", outliner.buckets
    count = len(buckets.first if is_first else buckets.rebuilt)
    if count and outline.name != "broadcast":
        name = f"{count} bucket{'s' * (count > 1)} of DistributedDataParallel"
        nbytes = buckets.first_bytes if is_first else buckets.rebuilt_bytes
        yield Tensors(name=name, nbytes=nbytes, category="gradients")


def _played(workload: Workload, outliner: Outliner, outline: Outline) -> Iterator[Tensors]:
    """What forward and backward have made."""
    course, sizes = outliner.course, symbol_sizes(workload, outliner.card)
    played = course.layout.played
    for kind, count in course.alive(outline.point).items():
        if not course.exact_sizes[kind]:
            continue
        times = course.layout.repetitions if played.kinds[kind].in_every_middle_layer else 1
        yield tensors_of(played.kinds[kind], count * times, sizes, played)


def _states(workload: Workload, outliner: Outliner) -> Iterator[Tensors]:
    groups, method = outliner.stepping.groups, workload.method
    for group in groups:
        for state in group_states(group, method):
            if not state.on_host:
                yield Tensors(
                    name=f"{group.name}: {state.name}",
                    nbytes=state.nbytes,
                    count=state.count,
                    category=state.category,
                    formula=state.formula,
                )
    yield from (state for state in shared_states(groups, method) if not state.on_host)


def _rest(outline: Outline, left: dict[str, int]) -> Iterator[Tensors]:
    names = {"refresh": "of the refresh", "step": "of the optimizer's step"}
    names |= {"evaluation": "of the evaluation", "resume": "of the checkpoint", "broadcast": "of the broadcast"}
    for category, nbytes in left.items():
        if nbytes and category == "workspaces":
            yield Tensors(name="cuBLAS workspaces", nbytes=nbytes, category=category)
        elif nbytes:
            name = names.get(outline.name) or names.get(outline.phase, "so far")
            yield Tensors(name=f"{category.replace('_', ' ')} {name}", nbytes=nbytes, category=category)
