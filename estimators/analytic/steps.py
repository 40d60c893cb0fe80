"""The largest moments inside an optimizer step: whole, or one parameter at a time during backward.

Read off the optimizers' code (see `parameter_steps`, `galore_torch_projector`, `galore_steps`) and held to it by
`tests/estimators/analytic/test_steps.py`, which records every storage that the real optimizers make on a CPU. Gradients
of all trainable parameters live at entry and, unless an optimizer replaces them, to the end: `zero_grad` comes later.

What cuSOLVER takes for itself cannot be known without a GPU: see `unknown_scratch`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Protocol

from estimators.analytic.galore_steps import end_accumulation, own_galore, take_pass
from estimators.analytic.parameter_steps import adafactor, adamw_8bit, adamw_of_galore_torch
from estimators.analytic.parameters import ParameterGroup, lone
from estimators.analytic.states import (
    accumulated_gradients,
    as_stepped,
    group_states,
    projects_each_pass,
    shared_states,
)
from estimators.analytic.tensors import rounded
from estimators.analytic.walk import Pass, StepMoment, Walk
from estimators.footprint import Iteration
from estimators.workload import Method

Groups = tuple[ParameterGroup, ...]


class ParameterStep(Protocol):
    """One parameter's turn in an optimizer that loops over parameters."""

    def __call__(self, walk: Walk, group: ParameterGroup, method: Method, *, first: bool, refreshes: bool) -> None:
        """Walks through it."""


@lru_cache(maxsize=4096)
def whole_step(groups: Groups, method: Method, iteration: Iteration, *, refresh: bool) -> tuple[StepMoment, ...]:
    """Peaks of a step over all parameters.

    Args:
        groups: all parameters, in the order in which the model lists them; consecutive groups of one count interleave.
        method: the optimizer.
        iteration: `first` creates states, and always refreshes projectors.
        refresh: projectors are recomputed; no effect on methods that have none.

    Returns:
        One moment for each phase: `refresh`, if any, and `step`.
    """
    walk = Walk()
    walk_whole_step(walk, groups, method, first=iteration == "first", refreshes=refresh)
    return walk.moments()


def walk_whole_step(walk: Walk, groups: Groups, method: Method, *, first: bool, refreshes: bool) -> None:
    """Take a walk through a step over all parameters."""
    trainable = tuple(group for group in groups if group.trainable)
    for group in trainable:
        walk.take("gradients", group.nbytes, group.count)
    if not first:
        for group in trainable:
            walk.take_states(group_states(lone(group), method), count=group.count)
        walk.take_states(shared_states(trainable, method))
    for part in optimizer_groups(trainable, method):
        _step_part(walk, part, method, first=first, refreshes=refreshes or first)


@lru_cache(maxsize=65536)
def parameter_step(
    group: ParameterGroup, method: Method, iteration: Iteration, *, refresh: bool, part: Pass = "only"
) -> tuple[StepMoment, ...]:
    """Peaks of stepping one parameter of the group alone, in its post-accumulate-grad hook.

    Args:
        group: the parameter's group.
        method: the optimizer; each parameter has one of its own.
        iteration: `first` creates its states, and always refreshes its projector.
        refresh: its projector is recomputed.
        part: the backward pass; only the last one of an accumulation steps.

    Returns:
        One moment for each phase, none for a frozen parameter. `gradients` holds this parameter's gradient only, and
        beside it what earlier passes have left; `optimizer_states` and `projectors` its own.
    """
    if not group.trainable:
        return ()
    walk = Walk()
    walk_parameter_step(walk, group, method, first=iteration == "first", refreshes=refresh, part=part)
    return walk.moments()


def walk_parameter_step(
    walk: Walk, group: ParameterGroup, method: Method, *, first: bool, refreshes: bool, part: Pass = "only"
) -> None:
    """Take a walk through the step of one parameter alone, or through what an earlier pass does with its gradient.

    A gradient that is added to an accumulated one has died when hooks are called (torch/csrc/autograd/functions/
    accumulate_grad.h); a projected one lives until its hook lets go of it.
    """
    group, projects, is_later = (
        replace(group, count=1),
        projects_each_pass(group, method),
        part in ("middle", "closing"),
    )
    states = group_states(group, method) if not first else ()
    if first and is_later and projects:
        states = tuple(state for state in group_states(group, method) if state.category == "projectors")
    walk.take_states(states)
    if is_later:
        for held in accumulated_gradients(group, method):
            walk.take("gradients", held.nbytes)
    if projects or not is_later:
        walk.take("gradients", group.nbytes)
    if projects and part != "only":
        if part == "closing":
            end_accumulation(walk, group, method, first=first)
        else:
            take_pass(walk, group, method, first=first, opening=part == "opening")
    elif part in ("only", "closing"):
        _step_part(walk, (group,), method, first=first, refreshes=refreshes or first)


def optimizer_groups(groups: Groups, method: Method) -> list[Groups]:
    """The optimizer's own parameter groups: GaLore keeps projected parameters in a second one."""
    if method.parameterisation != "galore":
        return [groups]
    parts = [tuple(group for group in groups if group.projected is projected) for projected in (False, True)]
    return [part for part in parts if part]


def _step_part(walk: Walk, groups: Groups, method: Method, *, first: bool, refreshes: bool) -> None:
    if method.master_weights:
        groups = _cast_gradients(walk, groups, method)
    step = looping_optimizer(method)
    if step is own_galore and type(walk) is Walk and len(groups) > 1:
        _each(walk, groups, _turns(walk, method, first=first, refreshes=refreshes))
        return
    if step is not None:
        _each(walk, groups, lambda group: step(walk, group, method, first=first, refreshes=refreshes))
        return
    if first:
        for group in groups:
            walk.take_states(group_states(group, method), count=group.count)
    if method.optimizer == "adamw":
        _ADAMW_KERNELS[method.kernel](walk, groups)


def _turns(walk: Walk, method: Method, *, first: bool, refreshes: bool) -> Callable[[ParameterGroup], None]:
    """Our GaLore's turn of one parameter, walked once for all of its shape and kind: none leaves a temporary behind."""
    known: dict[tuple[ParameterGroup, int], Walk] = {}

    def one(group: ParameterGroup) -> None:
        key = (lone(group), walk.shared_made)
        turn = known.get(key)
        if turn is None:
            turn = known[key] = walk.branch()
            own_galore(turn, key[0], method, first=first, refreshes=refreshes)
        walk.join(turn)

    return one


def _cast_gradients(walk: Walk, groups: Groups, method: Method) -> Groups:
    """Gradients of master weights (Megatron-Core, `_copy_model_grads_to_main_grads`); returns what is stepped."""

    def one(group: ParameterGroup) -> None:
        walk.replace_gradient(group.nbytes, as_stepped(group, method).nbytes)

    _each(walk, groups, one)
    return tuple(as_stepped(group, method) for group in groups)


def looping_optimizer(method: Method) -> ParameterStep | None:
    """How the optimizer steps one parameter; None for torch's own, which work on all at once."""
    if method.parameterisation == "galore" and method.implementation == "galore-mem":
        return own_galore
    match method.optimizer:
        case "adamw-8bit" | "adamw-32bit":
            return adamw_8bit
        case "adafactor":
            return adafactor
        case "adamw" if method.parameterisation == "galore":
            return adamw_of_galore_torch
        case _:
            return None


def _foreach_adamw(walk: Walk, groups: Groups) -> None:
    """Torch's `_multi_tensor_adam`: the square roots of all second moments of one dtype, in one list.

    The list of one dtype lives until that of the next has been made.
    """
    for itemsize in sorted({group.itemsize for group in groups}):
        same = [group for group in groups if group.itemsize == itemsize]
        walk.hold("exp_avg_sq_sqrt", sum(rounded(group.nbytes) * group.count for group in same))
    walk.drop("exp_avg_sq_sqrt")


def _loop_adamw(walk: Walk, groups: Groups) -> None:
    """Torch's `_single_tensor_adam`: a root and its quotient, while the previous parameter's quotient still lives."""

    def one(group: ParameterGroup) -> None:
        walk.hold("sqrt", group.nbytes)
        walk.hold("denom", group.nbytes)
        walk.drop("sqrt")

    _each(walk, groups, one)
    walk.drop("denom")


def _fused_adamw(walk: Walk, groups: Groups) -> None:
    """Torch's `_fused_adamw_` updates in place."""


_ADAMW_KERNELS = {"foreach": _foreach_adamw, "loop": _loop_adamw, "fused": _fused_adamw}


def _each(walk: Walk, groups: Groups, one: Callable[[ParameterGroup], None]) -> None:
    """Walk over every parameter in model order.

    Layers after the second change what lives by equal amounts, so the largest moment is in the first, second or last.
    """
    for layer, count in runs_of(groups):
        for _ in range(min(count, 2)):
            before = walk.totals()
            for group in layer:
                one(group)
        if count > 2:
            walk.repeat(before, count - 3)
            for group in layer:
                one(group)


def runs_of(groups: Sequence[ParameterGroup]) -> Iterator[tuple[Sequence[ParameterGroup], int]]:
    """Stretches of groups that interleave, layer by layer."""
    start = 0
    while start < len(groups):
        stop = start
        while stop < len(groups) and groups[stop].count == groups[start].count:
            stop += 1
        yield groups[start:stop], groups[start].count
        start = stop
