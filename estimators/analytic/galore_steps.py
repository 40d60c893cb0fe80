"""This package's own GaLore on a walk: one parameter after another, projected or not (galore_mem/optim)."""

from estimators.analytic.parameters import ParameterGroup
from estimators.analytic.projection import projection_of
from estimators.analytic.states import group_states, inner_states, shared_states
from estimators.analytic.tensors import rounded
from estimators.analytic.walk import Walk
from estimators.workload import Method

CHUNK_BYTES = 16 * 2**20
OVERSAMPLING = 16


def own_galore(walk: Walk, group: ParameterGroup, method: Method, *, first: bool, refreshes: bool) -> None:
    """One parameter: refresh if due, project, let the inner optimizer step a stand-in, land its update in place."""
    if group.projected and refreshes:
        walk.enter("refresh")
        walk.brief(_refresh_bytes(group, method))
        if first:
            walk.take_states(tuple(s for s in group_states(group, method) if s.category == "projectors"))
        walk.enter("step")
    if first:
        if method.update == "whole":
            for shared in shared_states((group,), method):
                walk.take_once(shared)
        walk.take_states(inner_states(group, method))
    walk.brief(_step_bytes(group, method))


def _refresh_bytes(group: ParameterGroup, method: Method) -> int:
    """PLACEHOLDER for estimators.analytic.galore_scratch: two blocks of l vectors and one chunk of the gradient."""
    smaller = min(group.shape)
    width = min(smaller, projection_of(group, method).rank + OVERSAMPLING)
    return 2 * rounded(4 * smaller * width) + min(CHUNK_BYTES, 4 * group.numel)


def _step_bytes(group: ParameterGroup, method: Method) -> int:
    """PLACEHOLDER for estimators.analytic.galore_scratch: projected gradient, stand-in, the inner's temporaries."""
    numel = projection_of(group, method).low_rank_numel if group.projected else group.numel
    low = rounded(group.itemsize * numel)
    inner = {"adamw": low, "adafactor": 5 * rounded(4 * numel)}.get(method.optimizer, 0)
    return (2 * low if group.projected else 0) + inner
