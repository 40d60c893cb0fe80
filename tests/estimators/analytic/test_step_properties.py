"""What must hold for states and steps of any parameters, without looking at any optimizer."""

from dataclasses import replace
from itertools import groupby

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from estimators.analytic.parameters import ParameterGroup
from estimators.analytic.states import MIN_8BIT_ELEMENTS, group_states, shared_states
from estimators.analytic.steps import Groups, parameter_step, walk_whole_step, whole_step
from estimators.analytic.tensors import exact_bytes, live_bytes
from estimators.analytic.walk import Walk
from estimators.workload import METHODS, Implementation, Method, OptimizerKernel, ProjType, Update
from profiles.errors import InputError

sizes = st.integers(min_value=1, max_value=300)
kernels = st.sampled_from(list[OptimizerKernel](["foreach", "fused", "loop"]))
proj_types = st.sampled_from(list[ProjType](["std", "reverse_std", "left", "right", "full"]))
implementations = st.sampled_from(list[Implementation](["galore-mem", "galore-torch"]))
galore_names = st.sampled_from(["galore-adamw", "galore-adamw-8bit", "galore-adafactor"])


@st.composite
def methods(draw: st.DrawFn, update: Update = "whole") -> Method:
    name = draw(st.sampled_from(sorted(METHODS)))
    return Method(
        name=name,
        update=update,
        implementation=draw(implementations),
        rank=None if METHODS[name].parameterisation == "full" else draw(sizes),
        proj_type=draw(proj_types),
        optimizer_kernel=draw(kernels),
    )


@st.composite
def models(draw: st.DrawFn, method: Method) -> Groups:
    """Parameters around a stretch of equal layers."""
    layers = draw(st.integers(min_value=1, max_value=7))
    itemsize = draw(st.sampled_from([2, 4]))

    def group(name: str, count: int) -> ParameterGroup:
        shape = draw(st.tuples(sizes, sizes) | st.tuples(sizes))
        projected = method.parameterisation == "galore" and len(shape) == 2 and draw(st.booleans())
        return ParameterGroup(
            name=name, shape=shape, count=count, kind="linear", itemsize=itemsize, projected=projected,
            trainable=draw(st.booleans()),
        )  # fmt: skip

    before = [group("embedding", 1)]
    inside = [group(f"layer {number}", layers) for number in range(draw(st.integers(min_value=1, max_value=4)))]
    return (*before, *inside, group("head", 1))


def one_by_one(groups: Groups) -> Groups:
    """The same parameters, each listed on its own."""
    stretches = [(count, list(stretch)) for count, stretch in groupby(groups, key=lambda group: group.count)]
    return tuple(
        replace(group, count=1, name=f"{group.name} of {layer}")
        for count, stretch in stretches
        for layer in range(count)
        for group in stretch
    )


@given(st.data(), methods(), st.booleans())
def test_layers_need_not_be_walked_one_by_one(data: st.DataObject, method: Method, refresh: bool) -> None:
    groups = data.draw(models(method))
    for first in ("first", "steady"):
        together = whole_step(groups, method, first, refresh=refresh)
        apart = whole_step(one_by_one(groups), method, first, refresh=refresh)
        assert [moment.live_bytes for moment in together] == [moment.live_bytes for moment in apart]


class ByStatement(Walk):
    """A walk of another type takes every parameter's statements one after another."""


@given(st.data(), methods(), st.booleans(), st.booleans())
def test_a_turn_walked_once_serves_all_alike(data: st.DataObject, method: Method, first: bool, refresh: bool) -> None:
    groups = data.draw(models(method))
    groups = (*groups, *(replace(group, name=f"{group.name} again") for group in groups))
    together, by_statement = Walk(), ByStatement()
    for walk in (together, by_statement):
        walk_whole_step(walk, groups, method, first=first, refreshes=refresh)
    assert together.moments() == by_statement.moments()
    assert together.totals() == by_statement.totals()


@given(st.data(), methods())
def test_a_step_holds_at_least_what_lives_before_it(data: st.DataObject, method: Method) -> None:
    groups = data.draw(models(method))
    trainable = [group for group in groups if group.trainable]
    resident = sum(live_bytes(group_states(group, method)) for group in trainable)
    resident += live_bytes(shared_states(trainable, method))
    gradients = sum(-(-group.nbytes // 512) * 512 * group.count for group in trainable)
    moments = whole_step(groups, method, "steady", refresh=False)
    assert max((moment.live_bytes for moment in moments), default=0) >= resident + gradients
    for moment in moments:
        assert all(size > 0 for size in moment.by_category.values())


@given(st.data(), methods())
def test_a_refresh_never_lowers_the_peak(data: st.DataObject, method: Method) -> None:
    groups = data.draw(models(method))
    with_refresh = whole_step(groups, method, "steady", refresh=True)
    without = whole_step(groups, method, "steady", refresh=False)
    assert max((m.live_bytes for m in with_refresh), default=0) >= max((m.live_bytes for m in without), default=0)


@given(st.data(), methods(update="per-layer"))
def test_frozen_parameters_take_nothing(data: st.DataObject, method: Method) -> None:
    for group in data.draw(models(method)):
        frozen = replace(group, trainable=False)
        assert group_states(frozen, method) == ()
        assert parameter_step(frozen, method, "first", refresh=True) == ()


@given(galore_names, implementations, proj_types, st.sampled_from([2, 4]), sizes, sizes, sizes)
def test_states_grow_with_the_rank(
    name: str, implementation: Implementation, proj_type: ProjType, itemsize: int, rows: int, columns: int, rank: int
) -> None:
    """Away from bitsandbytes' threshold, below which states are four times as large."""
    group = ParameterGroup(
        name="w", shape=(rows, columns), count=2, kind="linear", itemsize=itemsize, projected=True
    )  # fmt: skip
    smaller, larger = (
        Method(name=name, implementation=implementation, proj_type=proj_type, rank=r) for r in (rank, rank + 1)
    )
    if name == "galore-adamw-8bit":
        assume(is_8bit(group, smaller) == is_8bit(group, larger))
    assert exact_bytes(group_states(group, smaller)) <= exact_bytes(group_states(group, larger))


def is_8bit(group: ParameterGroup, method: Method) -> bool:
    return any(state.name == "absmax1" for state in group_states(group, method))


@given(galore_names, implementations, st.sampled_from([2, 4]), sizes, sizes)
def test_at_full_rank_galore_saves_nothing(
    name: str, implementation: Implementation, itemsize: int, rows: int, columns: int
) -> None:
    """With `std`; on the longer side of a long matrix the square of the shorter one is all that is left of moments."""
    plain = ParameterGroup(name="w", shape=(rows, columns), count=1, kind="linear", itemsize=itemsize)
    projected = replace(plain, projected=True)
    method, inner = Method(name=name, implementation=implementation, rank=300), Method(name=METHODS[name].optimizer)
    held, held_by_inner = (group_states(projected, method), group_states(plain, inner))
    on_device = [sum(s.exact_bytes for s in states if not s.on_host) for states in (held, held_by_inner)]
    assert on_device[0] >= on_device[1]


@given(st.integers(min_value=1, max_value=3 * MIN_8BIT_ELEMENTS), st.sampled_from([256, 2048]))
def test_8bit_states_by_formula(numel: int, blocksize: int) -> None:
    group = ParameterGroup(name="b", shape=(numel,), count=1, kind="bias", itemsize=2)
    held = exact_bytes(group_states(group, Method(name="adamw-8bit", quant_blocksize=blocksize)))
    assert held == (8 * numel if numel < MIN_8BIT_ELEMENTS else 2 * numel + 8 * -(-numel // blocksize))


def test_a_projection_without_a_rank_is_refused() -> None:
    group = ParameterGroup(name="w", shape=(8, 8), count=1, kind="linear", itemsize=2, projected=True)
    with pytest.raises(InputError, match="has no rank"):
        group_states(group, Method(name="galore-adamw"))
