"""The moments of a first and of a steady iteration: live bytes by category at each candidate for the peak."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from estimators.analytic.buffers import buffers
from estimators.analytic.course import PHASES, Course, Point, course_of
from estimators.analytic.parameters import ParameterGroup, workload_parameters
from estimators.analytic.projection import projection_of
from estimators.analytic.states import group_states, shared_states
from estimators.analytic.steps import parameter_step, whole_step
from estimators.analytic.tensors import live_bytes, rounded
from estimators.footprint import Iteration, Moment, Phase
from estimators.workload import Method, Workload

Categories = dict[str, int]
ITERATIONS: tuple[Iteration, ...] = ("first", "steady")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """What lives across steps, by category; live bytes."""

    weights: int
    buffers: int
    optimizer_states: int
    projectors: int
    accumulators: int
    """Gradients that a per-layer update sums up over micro-batches, in the low-rank space where there is one."""

    @property
    def states(self) -> Categories:
        """What a step makes and every later iteration finds."""
        return {"optimizer_states": self.optimizer_states, "projectors": self.projectors}


def plus(*parts: Mapping[str, int]) -> Categories:
    """Sum by category, zeros left out."""
    total: Categories = {}
    for part in parts:
        for category, nbytes in part.items():
            total[category] = total.get(category, 0) + nbytes
    return {category: nbytes for category, nbytes in total.items() if nbytes}


def resident_of(workload: Workload) -> Resident:
    """Live bytes of weights, buffers and states."""
    groups, method = workload_parameters(workload), workload.method
    tensors = [state for group in groups for state in group_states(group, method)]
    tensors += shared_states(groups, method)
    return Resident(
        weights=sum(rounded(group.nbytes) * group.count for group in groups),
        buffers=live_bytes(buffers(workload.model)),
        optimizer_states=sum(state.live_bytes for state in tensors if state.category == "optimizer_states"),
        projectors=sum(state.live_bytes for state in tensors if state.category == "projectors"),
        accumulators=_accumulators(groups, workload),
    )


def _accumulators(groups: tuple[ParameterGroup, ...], workload: Workload) -> int:
    if workload.method.update == "whole" or workload.batch.gradient_accumulation_steps == 1:
        return 0
    return sum(_accumulator_bytes(group, workload.method) * group.count for group in groups if group.trainable)


def _accumulator_bytes(group: ParameterGroup, method: Method) -> int:
    if not group.projected:
        return rounded(group.nbytes)
    rows, columns = projection_of(group, method).low_rank_shape
    return rounded(rows * columns * group.itemsize)


def moments_of(workload: Workload, kernel: str, workspace_bytes: int) -> tuple[Moment, ...]:
    """Every moment of both iterations.

    Args:
        workload: the run.
        kernel: the attention kernel that runs.
        workspace_bytes: one cuBLAS workspace; backward's thread brings a second one.
    """
    course, resident = course_of(workload, kernel), resident_of(workload)
    moments: list[Moment] = []
    for iteration in ITERATIONS:
        if workload.method.update == "whole":
            found = _backward_then_step(workload, course, resident, iteration)
        else:
            found = _steps_inside_backward(workload, course, resident, iteration)
        for name, phase, live in found:
            threads = 1 if iteration == "first" and phase in ("forward", "loss") else 2
            always = {
                "weights": resident.weights,
                "buffers": resident.buffers,
                "workspaces": threads * workspace_bytes,
            }
            moments.append(Moment(iteration=iteration, name=name, phase=phase, by_category=plus(live, always)))
    return tuple(moments)


Found = Iterator[tuple[str, Phase, Categories]]


def _backward_then_step(workload: Workload, course: Course, resident: Resident, iteration: Iteration) -> Found:
    """Whole update: forward and backward, then refresh and step with all gradients alive."""
    states = resident.states if iteration == "steady" else {}
    for name, phase in PHASES.items():
        yield name, phase, plus(course.categories(course.peaks[name]), states)
    kept = course.categories(course.end)
    kept.pop("gradients", None)
    for moment in whole_step(workload_parameters(workload), workload.method, iteration, refresh=True):
        yield moment.phase, moment.phase, plus(kept, moment.by_category)


def _steps_inside_backward(workload: Workload, course: Course, resident: Resident, iteration: Iteration) -> Found:
    """Per-layer update: each parameter refreshes and steps in backward; in the first iteration states grow with it."""
    groups = {group.name: group for group in workload_parameters(workload)}
    method = workload.method
    alive = dict(resident.states) if iteration == "steady" else {}
    first_block: Categories = {}
    best: dict[str, tuple[int, Point, Categories]] = {}

    def candidate(name: str, point: Point, extra: Categories) -> None:
        total = point.total_bytes + sum(extra.values())
        if name not in best or total > best[name][0]:
            best[name] = (total, point, extra)

    for interval in course.intervals:
        if iteration == "first" and interval.skipped:
            alive = plus(alive, {category: nbytes * interval.skipped for category, nbytes in first_block.items()})
        candidate(interval.window, interval.largest, alive)
        if not interval.gradient or not interval.steps:
            continue
        group = groups[interval.gradient]
        own = _own_states(group, method)
        without = alive if iteration == "first" else plus(alive, _negative(own))
        for moment in parameter_step(group, method, iteration, refresh=True):
            name = "refresh" if moment.phase == "refresh" else "layer_update"
            extra = plus(without, moment.by_category, {"gradients": -rounded(group.nbytes)})
            candidate(name, interval.end, extra)
        if iteration == "first":
            alive = plus(alive, own)
            if interval.repeats and not interval.repetition:
                first_block = plus(first_block, own)
    accumulated = {"gradients": resident.accumulators}
    for name, (_, point, extra) in best.items():
        yield (
            name,
            PHASES.get(name) or ("refresh" if name == "refresh" else "step"),
            plus(course.categories(point), extra, accumulated),
        )


def _negative(part: Categories) -> Categories:
    return {category: -nbytes for category, nbytes in part.items()}


def _own_states(group: ParameterGroup, method: Method) -> Categories:
    """States of one parameter of the group."""
    return plus(*({state.category: state.live_bytes // group.count} for state in group_states(group, method)))
