"""This package's own GaLore on a walk: one parameter after another, projected or not (galore_mem/optim/galore.py).

`galore_scratch` says what each refresh and step holds; every step calls the inner optimizer anew, so nothing of one
parameter is carried into the next. The full gradient lives throughout, except in per-layer mode.
"""

from functools import lru_cache
from math import prod

from estimators.analytic.galore_scratch import inner_scratch_bytes, refresh_scratch_bytes, step_scratch_bytes
from estimators.analytic.parameters import ParameterGroup
from estimators.analytic.projection import projection_of
from estimators.analytic.states import accumulated_gradients, group_states, inner_states, shared_states
from estimators.analytic.tensors import rounded
from estimators.analytic.walk import Walk
from estimators.workload import Method, Optimizer


def own_galore(walk: Walk, group: ParameterGroup, method: Method, *, first: bool, refreshes: bool) -> None:
    """One parameter: refresh if due, project, let the inner optimizer step a stand-in, land its update in place."""
    if group.projected and refreshes:
        walk.enter("refresh")
        walk.brief(_refresh_bytes(group, method, first=first))
        if first:
            walk.take_states(state for state in group_states(group, method) if state.category == "projectors")
        walk.enter("step")
    if group.projected and method.update == "per-layer":
        # The full gradient dies once it is projected (galore_mem/optim/per_layer.py).
        walk.brief(_projecting_bytes(group, method))
        walk.give("gradients", group.nbytes)
    states = inner_states(group, method)
    if first:
        if method.update == "whole":
            for shared in shared_states((group,), method):
                walk.take_once(shared)
        walk.take_states(states)
    _inner_step(walk, group, method, first=first)


def take_pass(walk: Walk, group: ParameterGroup, method: Method, *, first: bool, opening: bool) -> None:
    """A projected gradient inside an accumulation (galore_mem/optim/per_layer.py, `_accumulate`).

    The first pass refreshes, and what it projects stays; later ones add theirs to it.
    """
    if opening:
        walk.enter("refresh")
        walk.brief(_refresh_bytes(group, method, first=first))
        if first:
            walk.take_states(state for state in group_states(group, method) if state.category == "projectors")
        walk.enter("step")
        (low,) = accumulated_gradients(group, method)
        walk.hold("between", _projecting_bytes(group, method) - rounded(low.nbytes))
        walk.take("gradients", low.nbytes)
        walk.drop("between")
    else:
        walk.brief(_projecting_bytes(group, method))
    walk.give("gradients", group.nbytes)


def end_accumulation(walk: Walk, group: ParameterGroup, method: Method, *, first: bool) -> None:
    """The last pass: its projected gradient joins the sum of those before, which the inner optimizer then steps."""
    take_pass(walk, group, method, first=first, opening=False)
    if first:
        walk.take_states(inner_states(group, method))
    (low,) = accumulated_gradients(group, method)
    _inner_step(walk, group, method, first=first, held_bytes=rounded(low.nbytes))


def _inner_step(walk: Walk, group: ParameterGroup, method: Method, *, first: bool, held_bytes: int = 0) -> None:
    """The inner optimizer's step, and the landing; `held_bytes` of their scratch live already.

    Adafactor makes a new RMS in every step: the figure of its step counts it, that of the landing does not.
    """
    if not group.projected or method.optimizer != "adafactor":
        walk.brief(_step_bytes(group, method, method.optimizer) - held_bytes)
        return
    new_rms_bytes = 4
    if not first:
        walk.take("optimizer_states", new_rms_bytes)
    walk.brief(_step_bytes(group, method, "adafactor") - held_bytes - rounded(new_rms_bytes))
    if not first:
        walk.give("optimizer_states", new_rms_bytes)
    walk.brief(_step_bytes(group, method, "sgd") - held_bytes)


@lru_cache(maxsize=16384)
def _refresh_bytes(group: ParameterGroup, method: Method, *, first: bool) -> int:
    """Scratch of a refresh; a first one's includes the projectors that it makes."""
    rows, rank = group.shape[0], projection_of(group, method).rank
    return refresh_scratch_bytes(
        rows, prod(group.shape[1:]), rank, group.itemsize, first=first, proj_type=method.proj_type
    )


def _projecting_bytes(group: ParameterGroup, method: Method) -> int:
    """The low-rank gradient, and the intermediate that `full` needs."""
    projection = projection_of(group, method)
    between = projection.rank * min(group.shape) if method.proj_type == "full" else 0
    return rounded(group.itemsize * projection.low_rank_numel) + rounded(group.itemsize * between)


@lru_cache(maxsize=16384)
def _step_bytes(group: ParameterGroup, method: Method, optimizer: Optimizer) -> int:
    """Scratch of a step with this inner optimizer; with `sgd`, which needs none, that of projecting and landing."""
    kernel = method.optimizer_kernel
    if not group.projected:
        return inner_scratch_bytes(group.shape, group.itemsize, optimizer=optimizer, optimizer_kernel=kernel)
    return step_scratch_bytes(
        group.shape[0],
        prod(group.shape[1:]),
        projection_of(group, method).rank,
        group.itemsize,
        optimizer=optimizer,
        proj_type=method.proj_type,
        optimizer_kernel=kernel,
    )
