"""What an optimizer holds between steps equals the closed form to the byte, and is nothing more than it says."""

from typing import Any

import pytest
import torch

from estimators.analytic.parameters import Kind, ParameterGroup
from estimators.analytic.states import group_states, shared_states
from estimators.workload import Method, ProjType
from galore_mem.optim import GaLore, GaLoreAdafactor, GaLoreAdamW, GaLoreAdamW8bit

METHODS: dict[str, type[GaLore]] = {
    "galore-adamw": GaLoreAdamW,
    "galore-adamw-8bit": GaLoreAdamW8bit,
    "galore-adafactor": GaLoreAdafactor,
}
SHAPES = ((96, 200), (200, 96), (128, 128))
DTYPES = (torch.float32, torch.bfloat16)


def trained(method: Method, shape: tuple[int, ...], dtype: torch.dtype, **options: str) -> tuple[GaLore, torch.Tensor]:
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(shape).to(dtype))
    optimizer = METHODS[method.name](
        [parameter],
        rank=method.rank,
        proj_type=method.proj_type,
        update_proj_gap=1,
        **options,  # type: ignore[arg-type]
    )
    for _ in range(3):
        parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return optimizer, parameter


def resident(state: dict[str, Any]) -> dict[str, int]:
    """Bytes by key, as storages hold them."""
    return {name: value.untyped_storage().nbytes() for name, value in state.items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("refresh", ["subspace", "randomized", "svd"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("proj_type", ["std", "reverse_std", "left", "right", "full"])
@pytest.mark.parametrize("name", METHODS)
def test_resident_bytes_equal_the_closed_form(name: str, proj_type: ProjType, dtype: torch.dtype, refresh: str) -> None:
    for shape in SHAPES:
        for rank in (8, 80, 500):
            method = Method(name=name, rank=rank, proj_type=proj_type, optimizer_kernel="loop")
            group = ParameterGroup(
                name="weight", shape=shape, count=1, kind="linear", itemsize=dtype.itemsize, projected=True
            )
            optimizer, parameter = trained(method, shape, dtype, refresh=refresh)
            held = resident(optimizer.state[parameter])
            expected = [*group_states(group, method), *shared_states([group], method)]
            assert sum(held.values()) == sum(entry.exact_bytes for entry in expected), (shape, rank)
            projectors = sum(size for key, size in held.items() if key.startswith("projector"))
            assert projectors == sum(entry.exact_bytes for entry in expected if entry.category == "projectors")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(96, 200), (300,)])
def test_parameters_trained_in_full_hold_the_inner_optimizers_states(
    name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    method = Method(name=name, rank=None, optimizer_kernel="loop")
    kind: Kind = "linear" if len(shape) == 2 else "norm"
    group = ParameterGroup(name="weight", shape=shape, count=1, kind=kind, itemsize=dtype.itemsize)
    optimizer, parameter = trained(method, shape, dtype)
    expected = [*group_states(group, method), *shared_states([group], method)]
    assert sum(resident(optimizer.state[parameter]).values()) == sum(entry.exact_bytes for entry in expected)


@pytest.mark.parametrize("name", METHODS)
def test_the_state_is_plain(name: str) -> None:
    optimizer, parameter = trained(Method(name=name, rank=8), (96, 200), torch.bfloat16)
    state = optimizer.state[parameter]
    assert type(state) is dict
    assert all(isinstance(value, torch.Tensor | int | float | bool) for value in state.values())
    assert all(value.is_contiguous() for value in state.values() if isinstance(value, torch.Tensor))
    assert set(optimizer.state) == {parameter}
    assert not optimizer.inner.optimizer.state
    assert not optimizer.inner.optimizer.param_groups


@pytest.mark.parametrize("storage", ["float32", "int8", "int4"])
def test_stored_projectors_take_what_their_storage_says(storage: str) -> None:
    rank, columns = 24, 90
    elements = rank * columns
    expected = {
        "float32": 4 * elements,
        "int8": elements + 4 * -(-elements // 256),
        "int4": elements // 2 + 4 * -(-elements // 256),
    }
    optimizer, parameter = trained(
        Method(name="galore-adamw", rank=rank), (200, columns), torch.bfloat16, projector_storage=storage
    )
    held = resident(optimizer.state[parameter])
    assert sum(size for key, size in held.items() if key.startswith("projector")) == expected[storage]
