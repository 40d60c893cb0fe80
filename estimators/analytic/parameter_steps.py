"""Optimizers that step one parameter after another, in Python loops: what each of their statements keeps alive.

Variables carry the names that the optimizers' code gives them, since a loop's variables hold tensors of the previous
parameter until they are assigned again. On the device every kernel runs in place unless said otherwise; scratch inside
reductions (`norm`, `mean`: kilobytes) is not counted.
"""

from math import prod

from estimators.analytic.galore_torch_projector import project, project_back, refresh
from estimators.analytic.parameters import ParameterGroup
from estimators.analytic.projection import Projection, projection_of
from estimators.analytic.states import inner_states, retains_factors, shared_states
from estimators.analytic.walk import Walk
from estimators.workload import Method


def adamw_of_galore_torch(walk: Walk, group: ParameterGroup, method: Method, *, first: bool, refreshes: bool) -> None:
    """One parameter in galore_torch/adamw.py, which steps unprojected parameters too."""
    walk.drop("low_gradient")  # `grad = p.grad`
    itemsize, numel = group.itemsize, group.numel
    projection = projection_of(group, method) if group.projected else None
    if projection is not None:
        numel = projection.low_rank_numel
        if refreshes:
            retains = retains_factors(group, method)
            refresh(walk, group, projection, itemsize=itemsize, first=first, retains=retains)
        project(walk, group, projection, itemsize=itemsize)
    if first:
        walk.take_states(inner_states(group, method))
    walk.hold("denom", itemsize * numel)
    walk.hold("norm_grad", itemsize * numel)
    if projection is not None:
        project_back(walk, group, projection, itemsize=itemsize)
        walk.move("full_update", "norm_grad")


def adamw_8bit(walk: Walk, group: ParameterGroup, method: Method, *, first: bool, refreshes: bool) -> None:
    """One parameter in bitsandbytes/optim/optimizer.py or galore_torch/adamw8bit.py.

    bitsandbytes' kernels need no scratch. galore_torch sets the weight aside as a copy, puts the low-rank gradient in
    the gradient's place, so that the full one dies, and steps a low-rank stand-in for the weight.
    """
    projection = projection_of(group, method) if group.projected else None
    if projection is not None:
        if refreshes:
            retains = retains_factors(group, method)
            refresh(walk, group, projection, itemsize=group.itemsize, first=first, retains=retains)
        low_bytes = project(walk, group, projection, itemsize=group.itemsize)
        walk.keep_as_gradient("low_gradient")
        walk.hold_weight("saved_data", group.nbytes)
        walk.hold("stand_in", low_bytes)
        walk.keep_as_weight("saved_data", group.nbytes)
        walk.give("gradients", group.nbytes)
    states = inner_states(group, method)
    names = {state.name for state in states}
    if first:
        for shared in shared_states((group,), method):
            walk.take_once(shared)
        walk.take_states(states)
    if "unorm_vec" in names and "absmax1" not in names:
        _norm_of_parameter(walk, group, projection)
    if projection is not None:
        project_back(walk, group, projection, itemsize=group.itemsize)
        walk.drop("full_update", "stand_in")


def _norm_of_parameter(walk: Walk, group: ParameterGroup, projection: Projection | None) -> None:
    """Bitsandbytes measures the parameter of 32-bit states when `max_unorm` is set: `norm(p.data.float())`."""
    numel = projection.low_rank_numel if projection is not None else group.numel
    if group.itemsize == 4:
        walk.brief(4)
    else:
        walk.brief(4 * numel, 4)


def adafactor(walk: Walk, group: ParameterGroup, method: Method, *, first: bool, refreshes: bool) -> None:
    """One parameter in transformers/optimization.py's Adafactor or galore_torch/adafactor.py, without momentum.

    All arithmetic is fp32: half-precision gradients and parameters are copied. `scale_parameter` and `relative_step`
    are off, as in transformers' Trainer.
    """
    half = group.itemsize != 4
    walk.drop("grad")
    if half:
        walk.hold("grad", 4 * group.numel)
    projection = projection_of(group, method) if group.projected else None
    shape: tuple[int, ...] = group.shape
    if projection is not None:
        shape = projection.low_rank_shape
        if refreshes:
            refresh(walk, group, projection, itemsize=4, first=first, retains=True)
        project(walk, group, projection, itemsize=4)
        walk.move("low_gradient", "grad")
    if first:
        walk.take_states(tuple(state for state in inner_states(group, method) if state.name != "RMS"))
    walk.drop("p_data_fp32")
    if half:
        walk.hold("p_data_fp32", 4 * group.numel)
    _new_rms(walk, first=first)
    _adafactor_update(walk, shape)
    if projection is not None:
        project_back(walk, group, projection, itemsize=4)
        walk.move("full_update", "update")
    walk.brief(4 * group.numel)  # `add_(-update)`


def _new_rms(walk: Walk, *, first: bool) -> None:
    walk.hold("norm", 4)
    walk.take("optimizer_states", 4)
    walk.drop("norm")
    if not first:
        walk.give("optimizer_states", 4)


def _adafactor_update(walk: Walk, shape: tuple[int, ...]) -> None:
    size = 4 * prod(shape)
    walk.hold("square", size)
    walk.hold("update", size)
    walk.drop("square")
    if len(shape) >= 2:
        rows, columns = 4 * prod(shape[:-1]), 4 * prod(shape[:-2] + shape[-1:])
        walk.brief(rows)
        walk.brief(columns)
        walk.brief(rows, 4 * prod(shape[:-2]))
        walk.hold("r_factor", rows)
        walk.hold("c_factor", columns)
        walk.hold("update", size)
        walk.drop("r_factor", "c_factor")
    else:
        walk.hold("update", size)
    walk.brief(4, 4)  # the update's norm and its root mean square
