"""Products, landing in place, stochastic rounding, and quantised projectors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from galore_mem.optim import storage
from galore_mem.optim.geometry import Side, low_rank_shape, projector_shape, sides
from galore_mem.optim.projection import add_projected_, land_, land_stochastic_, project, round_stochastically_

PROJ_TYPES = ("std", "reverse_std", "left", "right", "full")


def make_bases(shape: tuple[int, int], proj_type: str, rank: int) -> dict[Side, torch.Tensor]:
    return {side: torch.randn(projector_shape(shape, side, rank)) for side in sides(shape, proj_type)}


@given(
    rows=st.integers(1, 40), columns=st.integers(1, 40), rank=st.integers(1, 50), proj_type=st.sampled_from(PROJ_TYPES)
)
@settings(deadline=None, max_examples=60)
def test_products_equal_their_definition(rows: int, columns: int, rank: int, proj_type: str) -> None:
    shape = (rows, columns)
    bases = make_bases(shape, proj_type, rank)
    gradient, weight, left, right = torch.randn(shape), torch.randn(shape), bases.get("left"), bases.get("right")
    low = project(gradient, bases)
    expected = gradient if left is None else left.t() @ gradient
    expected = expected if right is None else expected @ right.t()
    assert low.shape == low_rank_shape(shape, proj_type, rank)
    assert torch.allclose(low, expected, rtol=1e-3, atol=1e-3)
    back = low if left is None else left @ low
    back = back if right is None else back @ right
    landed = weight.clone()
    land_(landed, low, bases, 0.5, 0.9)
    assert torch.allclose(landed, 0.9 * weight + 0.5 * back, rtol=1e-3, atol=1e-2)
    added = low.clone()
    add_projected_(added, weight, bases, alpha=0.3)
    assert torch.allclose(added, low + 0.3 * project(weight, bases), rtol=1e-3, atol=1e-3)


def test_stochastic_rounding_is_unbiased_and_never_further_than_a_neighbour() -> None:
    exact = torch.full((200_000,), 1.0 + 2**-9)  # a quarter of the way between two bf16 numbers
    rounded = round_stochastically_(exact.clone(), torch.Generator().manual_seed(0))
    assert set(rounded.tolist()) == {1.0, 1.0 + 2**-7}
    assert float(rounded.mean()) == pytest.approx(1.0 + 2**-9, abs=3e-5)
    assert torch.equal(rounded, rounded.bfloat16().float())


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 0.0, -0.0, 1.5, -3.0])
def test_stochastic_rounding_keeps_what_bf16_holds(value: float) -> None:
    exact = torch.full((1000,), value)
    assert torch.equal(
        round_stochastically_(exact.clone(), torch.Generator().manual_seed(0)).nan_to_num(7.0), exact.nan_to_num(7.0)
    )


@pytest.mark.parametrize("proj_type", PROJ_TYPES)
def test_stochastic_landing_moves_weights_that_nearest_rounding_freezes(
    proj_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("galore_mem.optim.projection.STOCHASTIC_CHUNK_BYTES", 1000)
    torch.manual_seed(0)
    shape, steps = (64, 48), 400
    bases = {side: basis.bfloat16() for side, basis in make_bases(shape, proj_type, 4).items()}
    low = torch.full(low_rank_shape(shape, proj_type, 4), 1e-3).bfloat16()
    expected = torch.zeros(shape)
    land_(expected, low.float(), {side: basis.float() for side, basis in bases.items()}, 1e-2, 1.0)
    nearest, stochastic = torch.ones(shape).bfloat16(), torch.ones(shape).bfloat16()
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        land_(nearest, low, bases, 1e-2, 1.0)
        land_stochastic_(stochastic, low, bases, 1e-2, 1.0, generator)
    assert torch.equal(nearest, torch.ones(shape).bfloat16())
    assert float((stochastic.float() - 1.0 - steps * expected).mean()) == pytest.approx(0.0, abs=1e-3)
    assert not torch.equal(stochastic, nearest)


@pytest.mark.parametrize("shape", [(16, 16), (7, 37), (1, 1), (64, 129)])
@pytest.mark.parametrize(("kind", "level"), [("int8", 127), ("int4", 7)])
def test_quantised_projectors_are_off_by_half_a_step_at_most(kind: str, level: int, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    basis = torch.randn(shape)
    state: dict[str, torch.Tensor] = {}
    storage.save(state, "right", basis, kind, torch.float32)
    assert sum(value.nbytes for value in state.values()) == storage.stored_bytes(shape, kind, 4)
    loaded = storage.load(state, "right", kind, torch.float32, shape)
    assert loaded.shape == shape
    assert float((loaded - basis).abs().max()) <= float(basis.abs().max()) / level / 2 * 1.001


@pytest.mark.parametrize("kind", ["parameter", "float32", "int8", "int4"])
def test_saving_again_writes_over_the_same_memory(kind: str) -> None:
    state: dict[str, torch.Tensor] = {}
    storage.save(state, "left", torch.randn(20, 6), kind, torch.bfloat16)
    before = {name: value.data_ptr() for name, value in state.items()}
    storage.save(state, "left", torch.randn(20, 6), kind, torch.bfloat16)
    assert {name: value.data_ptr() for name, value in state.items()} == before


def test_nothing_of_a_view_is_kept() -> None:
    state: dict[str, torch.Tensor] = {}
    storage.save(state, "left", torch.randn(50, 50)[:, :4], "parameter", torch.float32)
    assert state["projector_left"].untyped_storage().nbytes() == 50 * 4 * 4
    assert state["projector_left"].is_contiguous()
