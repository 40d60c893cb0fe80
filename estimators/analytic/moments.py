"""The moments of a first and of a steady iteration: live bytes by category at each candidate for the peak."""

from collections.abc import Mapping
from dataclasses import dataclass

from estimators.analytic.buffers import buffers
from estimators.analytic.course import PHASES, Course, Point, course_of
from estimators.analytic.parameters import ParameterGroup, workload_parameters
from estimators.analytic.projection import projection_of
from estimators.analytic.states import group_states, shared_states
from estimators.analytic.steps import parameter_step, whole_step
from estimators.analytic.tensors import live_bytes, rounded
from estimators.footprint import Iteration, Moment
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

    def base(self, iteration: Iteration) -> Categories:
        """What is alive before an iteration: the first one makes its states in its step."""
        held = {"weights": self.weights, "buffers": self.buffers}
        if iteration == "steady":
            held |= {"optimizer_states": self.optimizer_states, "projectors": self.projectors}
        return held


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
    step = _layer_moments if workload.method.update == "per-layer" else _whole_moments
    moments: list[Moment] = []
    for iteration in ITERATIONS:
        for name, phase in PHASES.items():
            threads = 1 if iteration == "first" and phase == "forward" else 2
            live = plus(course.categories(course.peaks[name]), {"workspaces": threads * workspace_bytes})
            moments.append(_moment(iteration, name, phase, plus(live, resident.base(iteration))))
        moments += step(workload, course, resident, iteration, workspace_bytes)
    return tuple(moments)


def _moment(iteration: Iteration, name: str, phase: str, by_category: Categories) -> Moment:
    return Moment(iteration=iteration, name=name, phase=phase, by_category=by_category)  # type: ignore[arg-type]


def _whole_moments(
    workload: Workload, course: Course, resident: Resident, iteration: Iteration, workspace_bytes: int
) -> list[Moment]:
    """Refresh and step over all parameters, with all gradients alive."""
    kept = plus(course.categories(course.end))
    kept.pop("gradients", None)
    around = plus(kept, {"weights": resident.weights, "buffers": resident.buffers, "workspaces": 2 * workspace_bytes})
    found = whole_step(workload_parameters(workload), workload.method, iteration, refresh=True)
    return [_moment(iteration, moment.phase, moment.phase, plus(around, moment.by_category)) for moment in found]


@dataclass(slots=True)
class _Candidate:
    total: int
    point: Point
    extra: Categories


def _layer_moments(
    workload: Workload, course: Course, resident: Resident, iteration: Iteration, workspace_bytes: int
) -> list[Moment]:
    """Refresh and step of one parameter at a time, inside backward; in the first iteration states grow with it."""
    groups = {group.name: group for group in workload_parameters(workload)}
    everything = {"optimizer_states": resident.optimizer_states, "projectors": resident.projectors}
    so_far: Categories = {} if iteration == "first" else everything
    best: dict[str, _Candidate] = {}
    block: list[str] = []
    for name, point, skipped in course.updates():
        group = groups[name]
        own = _own_states(group, workload.method)
        if iteration == "first":
            block = _grown(so_far, block, skipped, groups, workload.method)
            others = so_far
        else:
            others = plus(so_far, {category: -nbytes for category, nbytes in own.items()})
        for moment in parameter_step(group, workload.method, iteration, refresh=True):
            extra = plus(others, moment.by_category, {"gradients": -rounded(group.nbytes)})
            total = point.total_bytes + sum(extra.values())
            label = "refresh" if moment.phase == "refresh" else "layer_update"
            if label not in best or total > best[label].total:
                best[label] = _Candidate(total, point, extra)
        if iteration == "first":
            so_far = plus(so_far, own)
    around = {"weights": resident.weights, "buffers": resident.buffers, "workspaces": 2 * workspace_bytes}
    return [
        _moment(
            iteration,
            label,
            "refresh" if label == "refresh" else "step",
            plus(course.categories(found.point), found.extra, around, {"gradients": resident.accumulators}),
        )
        for label, found in best.items()
    ]


def _own_states(group: ParameterGroup, method: Method) -> Categories:
    """States of one parameter of the group."""
    return plus(*({state.category: state.live_bytes // group.count} for state in group_states(group, method)))
