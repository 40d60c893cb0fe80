"""Peak scratch of refresh and step, counted storage by storage, equals the documented figure."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from estimators.analytic import galore_scratch
from estimators.analytic.galore_scratch import (
    RefreshKind,
    inner_scratch_bytes,
    refresh_scratch_bytes,
    step_scratch_bytes,
)
from estimators.workload import Optimizer, OptimizerKernel, ProjType
from galore_mem.optim import GaLore, GaLoreAdafactor, GaLoreAdamW, GaLoreAdamW8bit, refresh

Counter = Callable[..., Any]
SHAPES = ((96, 40), (40, 96), (64, 64), (700, 130))
RANKS = (8, 30, 500)
PROJ_TYPES: tuple[ProjType, ...] = ("std", "reverse_std", "left", "right", "full")
DTYPES = (torch.float32, torch.bfloat16)


def make(cls: type[GaLore], shape: tuple[int, int], rank: int, dtype: torch.dtype, options: dict[str, Any]) -> GaLore:
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(shape).to(dtype))
    parameter.grad = torch.randn(shape).to(dtype)
    return cls([{"params": [parameter], "rank": rank}], **options)


def test_constants_are_those_of_the_optimizer() -> None:
    for name in ("CHUNK_BYTES", "OVERSAMPLING"):
        assert getattr(galore_scratch, name) == getattr(refresh, name)


@pytest.mark.parametrize("chunk_bytes", [refresh.CHUNK_BYTES, 40_000])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["subspace", "randomized", "svd"])
@pytest.mark.parametrize("proj_type", PROJ_TYPES)
def test_refresh(
    proj_type: ProjType,
    kind: RefreshKind,
    dtype: torch.dtype,
    chunk_bytes: int,
    live_bytes: Counter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refresh, "CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(galore_scratch, "CHUNK_BYTES", chunk_bytes)
    for shape in SHAPES:
        for rank in RANKS:
            optimizer = make(GaLoreAdamW, shape, rank, dtype, {"proj_type": proj_type, "refresh": kind})
            group = optimizer.param_groups[0]
            parameter = group["params"][0]
            for first in (True, False):
                with live_bytes() as counter, torch.no_grad():
                    assert optimizer.refresh(group, parameter)
                expected = refresh_scratch_bytes(
                    *shape, rank, dtype.itemsize, first=first, proj_type=proj_type, refresh=kind
                )
                assert counter.peak_bytes == expected, (shape, rank, first)


INNER = pytest.mark.parametrize(
    ("cls", "optimizer_name", "kernel", "options"),
    [
        (GaLoreAdamW, "adamw", "foreach", {"foreach": True}),
        (GaLoreAdamW, "adamw", "loop", {"foreach": False}),
        (GaLoreAdamW, "adamw", "fused", {"fused": True}),
        (GaLoreAdamW8bit, "adamw-8bit", "loop", {}),
        (GaLoreAdafactor, "adafactor", "loop", {}),
    ],
    ids=["adamw-foreach", "adamw-loop", "adamw-fused", "adamw-8bit", "adafactor"],
)


@INNER
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("proj_type", PROJ_TYPES)
def test_step(
    cls: type[GaLore],
    optimizer_name: Optimizer,
    kernel: OptimizerKernel,
    options: dict[str, Any],
    proj_type: ProjType,
    dtype: torch.dtype,
    live_bytes: Counter,
) -> None:
    for shape in SHAPES:
        for rank in RANKS:
            optimizer = make(cls, shape, rank, dtype, {"proj_type": proj_type, **options})
            group = optimizer.param_groups[0]
            parameter = group["params"][0]
            optimizer.step()
            with live_bytes(scalars=optimizer_name == "adafactor") as counter:
                counter.know(
                    *(value for value in optimizer.state[parameter].values() if isinstance(value, torch.Tensor))
                )
                optimizer.step()
            expected = step_scratch_bytes(
                *shape, rank, dtype.itemsize, optimizer=optimizer_name, proj_type=proj_type, optimizer_kernel=kernel
            )
            assert counter.peak_bytes == expected, (shape, rank)
            assert counter.live_bytes == 0


@INNER
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(640, 48), (48, 640), (5000,)])
def test_step_of_an_unprojected_parameter(
    cls: type[GaLore],
    optimizer_name: Optimizer,
    kernel: OptimizerKernel,
    options: dict[str, Any],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    live_bytes: Counter,
) -> None:
    parameter = torch.nn.Parameter(torch.randn(shape).to(dtype))
    parameter.grad = torch.randn_like(parameter)
    optimizer = cls([parameter], lr=1e-3, **options)
    optimizer.step()
    with live_bytes(scalars=optimizer_name == "adafactor") as counter:
        counter.know(*(value for value in optimizer.state[parameter].values() if isinstance(value, torch.Tensor)))
        optimizer.step()
    expected = inner_scratch_bytes(shape, dtype.itemsize, optimizer=optimizer_name, optimizer_kernel=kernel)
    assert counter.peak_bytes == expected


def test_a_step_holds_one_matrix_at_a_time(live_bytes: Counter) -> None:
    """Five matrices, stepped together with the foreach kernel, hold no more than the largest of them."""
    parameters = [torch.nn.Parameter(torch.randn(rows, 64)) for rows in (64, 96, 640, 96, 64)]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer = GaLoreAdamW(parameters, rank=16, foreach=True)
    optimizer.step()
    with live_bytes(scalars=False) as counter:
        optimizer.step()
    assert counter.peak_bytes == step_scratch_bytes(640, 64, 16, 4, optimizer="adamw")


@pytest.mark.parametrize("rank", [8, 64])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_refresh_holds_a_full_size_copy(dtype: torch.dtype, rank: int) -> None:
    rows, columns = 11008, 4096
    copy_bytes = 4 * rows * columns
    for first in (True, False):
        assert refresh_scratch_bytes(rows, columns, rank, dtype.itemsize, first=first) < copy_bytes / 6
        assert refresh_scratch_bytes(rows, columns, rank, dtype.itemsize, first=first, refresh="svd") > copy_bytes
