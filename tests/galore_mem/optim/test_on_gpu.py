"""On a CUDA device: what `torch.cuda.max_memory_allocated` counts is what the documented figures say."""

from typing import Any

import galore_torch
import pytest
import torch

from estimators.analytic.galore_scratch import RefreshKind, refresh_scratch_bytes, step_scratch_bytes
from estimators.analytic.parameters import ParameterGroup
from estimators.analytic.unknown_scratch import unknown_scratch
from estimators.workload import Method, Optimizer, OptimizerKernel
from galore_mem.optim import GaLore, GaLoreAdafactor, GaLoreAdamW, GaLoreAdamW8bit

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

ROWS, COLUMNS, RANK = 4096, 1024, 256
REMAINDERS_BYTES = 4 * 2**20
"""Of four blocks above 1 MiB at most: the allocator leaves up to 1 MiB of each unsplit and counts it."""
INNER: dict[str, tuple[type[GaLore], Optimizer, OptimizerKernel, dict[str, Any]]] = {
    "adamw-foreach": (GaLoreAdamW, "adamw", "foreach", {"foreach": True}),
    "adamw-fused": (GaLoreAdamW, "adamw", "fused", {"fused": True}),
    "adamw-8bit": (GaLoreAdamW8bit, "adamw-8bit", "loop", {}),
    "adafactor": (GaLoreAdafactor, "adafactor", "loop", {"lr": 1e-3}),
}


def matrix(dtype: torch.dtype) -> torch.nn.Parameter:
    parameter = torch.nn.Parameter(torch.randn(ROWS, COLUMNS, device="cuda").to(dtype))
    parameter.grad = torch.randn_like(parameter)
    return parameter


def peak_of(optimizer: torch.optim.Optimizer) -> int:
    """Of a step, above what was allocated before it; libraries' handles and workspaces exist already."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    optimizer.step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("inner", INNER)
def test_a_plain_step_holds_its_documented_scratch(inner: str, dtype: torch.dtype) -> None:
    cls, optimizer_name, kernel, options = INNER[inner]
    optimizer = cls([matrix(dtype)], rank=RANK, update_proj_gap=1000, **options)
    for _ in range(2):
        optimizer.step()
    expected = step_scratch_bytes(
        ROWS, COLUMNS, RANK, dtype.itemsize, optimizer=optimizer_name, optimizer_kernel=kernel
    )
    assert expected <= peak_of(optimizer) + 4096 <= expected + REMAINDERS_BYTES


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("refresh", ["subspace", "randomized"])
def test_a_refresh_stays_within_its_bound(refresh: RefreshKind, dtype: torch.dtype) -> None:
    """Workspaces of cuSOLVER come from torch's allocator too: `plan` bounds them by a term of its own."""
    optimizer = GaLoreAdamW([matrix(dtype)], rank=RANK, update_proj_gap=1, refresh=refresh)
    for _ in range(2):
        optimizer.step()
    group = ParameterGroup(
        name="weight", shape=(ROWS, COLUMNS), count=1, kind="linear", itemsize=dtype.itemsize, projected=True
    )
    inside = sum(term.high_bytes for term in unknown_scratch((group,), Method(name="galore-adamw", rank=RANK)))
    known = refresh_scratch_bytes(ROWS, COLUMNS, RANK, dtype.itemsize, first=False, refresh=refresh)
    assert peak_of(optimizer) <= known + inside + REMAINDERS_BYTES


def test_scratch_is_less_than_the_references() -> None:
    parameter = matrix(torch.bfloat16)
    group = {"params": [parameter], "rank": RANK, "update_proj_gap": 1, "scale": 0.25, "proj_type": "std"}
    peaks = []
    for optimizer in (GaLoreAdamW([group]), galore_torch.GaLoreAdamW([dict(group)], no_deprecation_warning=True)):
        for _ in range(2):
            optimizer.step()
        peaks.append(peak_of(optimizer))
    assert peaks[0] < peaks[1]


@pytest.mark.parametrize("refresh", ["subspace", "svd"])
def test_a_refresh_captures_what_it_does_on_a_cpu(refresh: RefreshKind) -> None:
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.arange(1, 257).float() ** -1
    gradient = torch.randn(512, 256, generator=generator) * spectrum @ torch.randn(256, 256, generator=generator)
    exact = torch.linalg.svdvals(gradient)[:32].square().sum()
    for device in ("cpu", "cuda"):
        parameter = torch.nn.Parameter(torch.zeros(512, 256, device=device))
        parameter.grad = gradient.to(device)
        optimizer = GaLoreAdamW([parameter], rank=32, refresh=refresh)
        optimizer.step()
        low = parameter.grad @ optimizer.state[parameter]["projector_right"].t()
        assert float(low.square().sum().cpu() / exact) > 0.999


@pytest.mark.parametrize("cls", [GaLoreAdamW, GaLoreAdamW8bit, GaLoreAdafactor])
def test_a_moved_model_trains_on(cls: type[GaLore]) -> None:
    layer = torch.nn.Linear(96, 80)
    optimizer = cls(layer.named_parameters(), rank=60, lr=1e-3, update_proj_gap=2)
    for device in ("cpu", "cuda", "cpu", "cuda"):
        layer.to(device)
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.randn(16, 96, device=device)).square().mean().backward()
            optimizer.step()
        assert optimizer.state[layer.weight]["projector_left"].device.type == device
    assert all(parameter.isfinite().all() for parameter in layer.parameters())


def test_loss_scaling_in_half_precision() -> None:
    layer = torch.nn.Linear(96, 80, device="cuda")
    optimizer = GaLoreAdamW(layer.named_parameters(), rank=60, lr=1e-2)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**30)
    batch = torch.randn(64, 96, device="cuda")
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.float16):
            loss = (layer(batch) - 1).square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert scaler.get_scale() < 2.0**30
    assert losses[-1] < 0.8 * losses[0]


def test_stochastic_rounding_is_unbiased() -> None:
    parameter = torch.nn.Parameter(torch.ones(256, 256, device="cuda", dtype=torch.bfloat16))
    optimizer = GaLore(
        [parameter], torch.optim.SGD, rank=4, lr=1.0, scale=1.0, update_proj_gap=1000, stochastic_rounding=True
    )
    for _ in range(32):
        parameter.grad = torch.full_like(parameter, 2.0**-12)  # nearest rounding would leave 1.0 as it is
        optimizer.step()
    assert float(parameter.detach().float().mean()) == pytest.approx(1 - 32 * 2**-12, abs=5e-4)
