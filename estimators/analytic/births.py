"""Every tensor that a run makes: its size, and how much lives beside it. Out-of-memory errors are held against them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from estimators.analytic.attention import attention_kernel
from estimators.analytic.cards import card_of
from estimators.analytic.course import Course, whole_course_of
from estimators.analytic.data_parallel import Buckets, broadcast_copies, buckets_of
from estimators.analytic.evaluation import made_by
from estimators.analytic.shadow.tape import MIDDLE
from estimators.analytic.states import master_weights
from estimators.analytic.stepping import Stepping, stepping_of
from estimators.analytic.structure import PLAYED_LAYERS
from estimators.analytic.tensors import rounded
from estimators.footprint import Iteration
from estimators.workload import Workload
from profiles.gpus import SMALL_WORKSPACE_BYTES, Gpu

Stage = Literal["loading", "forward", "loss", "backward", "refresh", "step", "evaluation"]
_STAGES: dict[str, Stage] = {
    "forward_end": "forward",
    "loss": "loss",
    "backward_start": "backward",
    "backward_end": "backward",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """A tensor, or one of several alike that are made one after another."""

    iteration: Iteration
    stage: Stage
    name: str
    """As the model or the optimizer calls it; `*` stands for a layer's number."""
    formula: str
    """The size in symbols or as a shape, where it has one: `4bsv`."""
    nbytes: int
    category: str
    low_bytes: int
    """What lives before the first of them is made, each tensor rounded to 512 B."""
    high_bytes: int
    """What lives before the last of them is made."""
    count: int = 1
    first_layer: int | None = None
    """The layer of the first of them, where their order over the layers is known."""
    layer_step: int = 1
    """How the layer's number goes on from one to the next; -1 in backward."""
    is_sum: bool = False
    """Several tensors that live together and are not told apart: `nbytes` is what they take in all."""

    def layer_at(self, live_bytes: int) -> int | None:
        """The layer whose turn it is when so much lives; None where that cannot be told."""
        if self.first_layer is None or self.count == 1:
            return self.first_layer
        if self.high_bytes == self.low_bytes:
            return None
        share = (live_bytes - self.low_bytes) / (self.high_bytes - self.low_bytes)
        return self.first_layer + self.layer_step * round(min(max(share, 0.0), 1.0) * (self.count - 1))

    def distance_bytes(self, live_bytes: int) -> int:
        """How far `live_bytes` is from what lives when one of them is made."""
        low, high = sorted((self.low_bytes, self.high_bytes))
        return max(low - live_bytes, live_bytes - high, 0)


def births_of(workload: Workload, gpu: Gpu | None = None) -> tuple[Birth, ...]:
    """Every tensor of a run's loading, of a first and of a steady iteration.

    Args:
        workload: the run.
        gpu: the card, which decides the attention kernel and the sizes of workspaces.

    Raises:
        InputError: the workload cannot run on the card.
    """
    from estimators.analytic.step_births import births_of_steps

    workspace = gpu.cublas_workspace_recent_bytes if gpu is not None else SMALL_WORKSPACE_BYTES
    stepping = stepping_of(workload.model, workload.method, workload.precision)
    course = whole_course_of(workload, attention_kernel(workload, gpu), card_of(gpu))
    empty = stepping.weights_bytes + stepping.buffers_bytes + stepping.masters_bytes + 2 * workspace
    found = [*_loading(stepping), *_copied(stepping)]
    buckets = buckets_of(workload, course.layout)
    found += _shared(workload, buckets, empty - 2 * workspace, empty + stepping.states_bytes)
    found += _played(workload, "first", course, empty + buckets.first_bytes, before_backward=-workspace)
    empty += buckets.rebuilt_bytes
    found += _played(workload, "steady", course, empty + stepping.states_bytes)
    found += births_of_steps(workload.method, stepping, course, empty)
    if workload.eval_batch:
        found += _evaluated(workload, stepping, gpu, empty)
    return tuple(found)


def _loading(stepping: Stepping) -> Iterator[Birth]:
    """Weights as `model.to(device)` moves them; where in their order each comes is left open."""
    for group in stepping.groups:
        yield Birth(
            iteration="first",
            stage="loading",
            name=group.name,
            formula=" x ".join(map(str, group.shape)),
            nbytes=group.nbytes,
            category="weights",
            low_bytes=0,
            high_bytes=stepping.weights_bytes - rounded(group.nbytes),
            count=group.count,
        )


def _shared(workload: Workload, buckets: Buckets, loaded_bytes: int, trained_bytes: int) -> Iterator[Birth]:
    """Of data-parallel training: copies of weights that are broadcast, and the buckets, made twice."""
    if workload.data_parallel == 1:
        return
    copies = broadcast_copies(workload.model, workload.method, workload.precision)
    rows: list[tuple[Iteration, Stage, str, str, tuple[int, ...], int]] = [
        ("first", "loading", "copy of weights that is broadcast", "temporaries", copies, loaded_bytes),
        ("first", "loading", "bucket of DistributedDataParallel", "gradients", buckets.first, loaded_bytes),
        ("steady", "forward", "bucket of DistributedDataParallel", "gradients", buckets.rebuilt, trained_bytes),
    ]
    for iteration, stage, name, category, sizes, low in rows:
        for nbytes, count in Counter(filter(None, sizes)).items():
            yield Birth(
                iteration=iteration,
                stage=stage,
                name=name,
                formula="",
                nbytes=nbytes,
                category=category,
                low_bytes=low,
                high_bytes=low + sum(map(rounded, sizes)) - rounded(nbytes),
                count=count,
            )


def _evaluated(workload: Workload, stepping: Stepping, gpu: Gpu | None, empty_bytes: int) -> Iterator[Birth]:
    """Of the last batch of an evaluation."""
    keeps = workload.method.update == "whole" and workload.zero_grad == "start"
    around = empty_bytes + stepping.states_bytes + (stepping.gradients_after_bytes if keeps else 0)
    for made in made_by(workload, attention_kernel(workload, gpu), card_of(gpu)):
        yield Birth(
            iteration="steady",
            stage="evaluation",
            name=made.name,
            formula=made.formula,
            nbytes=made.nbytes,
            category=made.category,
            low_bytes=around + made.live_bytes,
            high_bytes=around + made.live_bytes,
            first_layer=made.layer,
        )


def _copied(stepping: Stepping) -> Iterator[Birth]:
    """Master weights, made when the optimizer is."""
    before = stepping.weights_bytes + stepping.buffers_bytes
    for group in stepping.groups:
        for copy in master_weights(group, stepping.method):
            yield Birth(
                iteration="first",
                stage="loading",
                name=f"{copy.name} of {group.name}",
                formula=copy.formula,
                nbytes=copy.nbytes,
                category=copy.category,
                low_bytes=before,
                high_bytes=before + stepping.masters_bytes - rounded(copy.nbytes),
                count=group.count,
            )


def _played(
    workload: Workload, iteration: Iteration, course: Course, around_bytes: int, *, before_backward: int = 0
) -> Iterator[Birth]:
    """Births of forward and backward, each once for all the layers that the middle one stands for.

    Until backward's first matrix product `before_backward` is added: its thread's workspace is not there yet.
    """
    layout, shifts = course.layout, course.shifts
    kinds, events = layout.played.kinds, layout.played.events
    changes = (course.sizes[code - 1] if code > 0 else -course.sizes[-code - 1] for code in events)
    values = list(accumulate(changes, initial=0))
    layers = _layers(course, workload.model.num_hidden_layers)
    passed = 0
    for stretch in layout.stretches:
        passed = max(passed, stretch.block)
        before = shifts[stretch.block - 1 if stretch.block else passed]
        growth = shifts[stretch.block] - before if stretch.block else 0
        for position in range(stretch.start, stretch.stop):
            if events[position] < 0:
                continue
            number = events[position] - 1
            if not course.exact_sizes[number]:
                continue  # partial sums of few rows
            kind = kinds[number]
            level = around_bytes + before + values[position]
            level += 0 if position >= layout.played.product else before_backward
            yield Birth(
                iteration=iteration,
                stage=_STAGES[stretch.window],
                name=kind.name,
                formula=kind.size.formula,
                nbytes=course.exact_sizes[number],
                category=kind.category,
                low_bytes=level,
                high_bytes=level + growth,
                count=layout.repetitions if stretch.block else 1,
                first_layer=layers[position],
                layer_step=-1 if stretch.window.startswith("backward") else 1,
            )


def _layers(course: Course, layers: int) -> list[int | None]:
    """The model's layer at each played event; a middle one's is that of its first repetition."""
    events, marks = course.layout.played.events, course.layout.played.marks
    found: list[int | None] = [None] * len(events)
    for place, (position, label, detail) in enumerate(marks):
        stop = marks[place + 1][0] if place + 1 < len(marks) else len(events)
        if label in ("forward of layer", "backward of layer"):
            deep = layers if course.layout.repetitions > 1 else 0
            layer = _real_layer(detail, label.startswith("backward"), deep)
        elif label in ("micro-batch", "loss", "backward"):
            layer = None
        else:
            layer = found[position - 1] if position else None
        found[position:stop] = [layer] * (stop - position)
    return found


def _real_layer(detail: str, in_backward: bool, layers: int) -> int | None:
    """The first layer that a played one stands for; `layers` is 0 where all are played."""
    if not detail.isdigit():
        return None
    number = int(detail)
    if layers <= PLAYED_LAYERS or number < MIDDLE:
        return number
    if number > MIDDLE:
        return layers - 1
    return layers - 2 if in_backward else MIDDLE
