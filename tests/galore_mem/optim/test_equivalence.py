"""With exact refreshes, fifty steps follow galore_torch's trajectory."""

from collections.abc import Callable
from typing import Any

import galore_torch
import pytest
import torch

from galore_mem.optim import GaLoreAdafactor, GaLoreAdamW, GaLoreAdamW8bit

STEPS, GAP, RANK = 50, 10, 8
SHAPES = {"wide": (48, 96), "tall": (96, 48), "square": (64, 64)}
PROJ_TYPES = ("std", "reverse_std", "left", "right", "full")
Build = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]


@pytest.fixture(autouse=True)
def _without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference synchronises the device after each 8-bit parameter; a build without CUDA has none."""
    if not torch.cuda.is_available():
        monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)


def gradient(weight: torch.Tensor, step: int) -> torch.Tensor:
    """A spectrum that falls like a real gradient's, drifting from step to step, with a pull towards zero."""
    rows, columns = weight.shape
    generator = torch.Generator().manual_seed(step)
    spectrum = torch.arange(1, min(rows, columns) + 1).float() ** -0.7
    left = torch.randn(rows, len(spectrum), generator=generator) * spectrum
    return left @ torch.randn(len(spectrum), columns, generator=generator) + 0.1 * weight.detach()


def largest_deviation(
    ours: Build, reference: Build, shape: tuple[int, int], proj_type: str, *, rank: int = RANK
) -> float:
    """Largest difference of two trajectories at any step, over the distance travelled.

    The learning rate rises from zero: a gradient's off-diagonal coordinates in its own singular basis are rounding
    noise, which Adam would blow up to full size in the very first step, differently for either program (`full`).
    """
    torch.manual_seed(0)
    start = torch.randn(shape) * 0.02
    mine, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    options = {"rank": rank, "update_proj_gap": GAP, "scale": 0.25, "proj_type": proj_type}
    pairs = [
        (mine, ours([{"params": [mine], "refresh": "svd", **options}])),
        (theirs, reference([{"params": [theirs], **options}])),
    ]
    worst = 0.0
    for step in range(STEPS):
        for parameter, optimizer in pairs:
            for group in optimizer.param_groups:
                if group["lr"] is not None:
                    group["lr"] = 1e-2 * min(1.0, step / 5)
            parameter.grad = gradient(parameter, step)
            optimizer.step()
        travelled = float((theirs.detach() - start).abs().max())
        worst = max(worst, float((mine - theirs).detach().abs().max()) / max(travelled, 1e-9))
    assert travelled > 5e-5
    return worst


@pytest.mark.parametrize("proj_type", PROJ_TYPES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_adamw(shape: tuple[int, int], proj_type: str) -> None:
    deviation = largest_deviation(
        lambda groups: GaLoreAdamW(groups, lr=1e-2, eps=1e-12, weight_decay=0.0),
        # The reference adds eps before the bias correction, torch after it: they agree where eps vanishes.
        lambda groups: galore_torch.GaLoreAdamW(groups, lr=1e-2, eps=1e-12, no_deprecation_warning=True),
        shape,
        proj_type,
    )
    assert deviation < 1e-4


def test_adamw_with_weight_decay_differs_by_its_order_alone() -> None:
    """The reference decays after the update, torch before it: each step differs by lr * weight_decay of its update."""
    decay = 0.1
    deviation = largest_deviation(
        lambda groups: GaLoreAdamW(groups, lr=1e-2, eps=1e-12, weight_decay=decay),
        lambda groups: galore_torch.GaLoreAdamW(
            groups, lr=1e-2, eps=1e-12, weight_decay=decay, no_deprecation_warning=True
        ),
        SHAPES["wide"],
        "std",
    )
    assert deviation < 2 * 1e-2 * decay


@pytest.mark.parametrize("proj_type", PROJ_TYPES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("explicit_lr", [False, True], ids=["own-schedule", "explicit-lr-and-momentum"])
def test_adafactor(shape: tuple[int, int], proj_type: str, explicit_lr: bool) -> None:
    options: dict[str, Any] = {"lr": 1e-2, "beta1": 0.9} if explicit_lr else {}
    switches = {"relative_step": False, "scale_parameter": False} if explicit_lr else {}
    deviation = largest_deviation(
        lambda groups: GaLoreAdafactor(groups, **options),
        lambda groups: galore_torch.GaLoreAdafactor(groups, **options, **switches),
        shape,
        proj_type,
    )
    assert deviation < 1e-3


EIGHT_BIT_SHAPES = {"wide": (192, 384), "tall": (384, 192), "square": (256, 256)}


def eight_bit_deviation(shape: tuple[int, int], proj_type: str) -> float:
    """Of tensors with 80 * 80 low-rank elements or more: enough for 8-bit states whatever the side."""
    return largest_deviation(
        lambda groups: GaLoreAdamW8bit(groups, lr=1e-2, eps=1e-12, weight_decay=0.0),
        lambda groups: galore_torch.GaLoreAdamW8bit(groups, lr=1e-2, eps=1e-12, weight_decay=0.0),
        shape,
        proj_type,
        rank=80,
    )


@pytest.mark.parametrize("proj_type", PROJ_TYPES)
@pytest.mark.parametrize("shape", EIGHT_BIT_SHAPES.values(), ids=EIGHT_BIT_SHAPES)
def test_adamw_8bit(shape: tuple[int, int], proj_type: str) -> None:
    """Same products, same codes. Only `full` on other than square matrices multiplies in another order: see below."""
    another_order = proj_type == "full" and shape[0] != shape[1]
    assert eight_bit_deviation(shape, proj_type) < (1e-2 if another_order else 1e-5)


@pytest.mark.parametrize("shape", [EIGHT_BIT_SHAPES["wide"], EIGHT_BIT_SHAPES["tall"]], ids=["wide", "tall"])
def test_adamw_8bit_full_differs_by_the_order_of_products_alone(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference multiplies from the left first, we from the side that leaves less, R times the shorter side.

    The last bits of a low-rank gradient then differ, and with them codes: most off-diagonal coordinates in a gradient's
    own singular basis are rounding noise, where neighbouring codes lie close. In the reference's order nothing differs.
    """
    monkeypatch.setattr(
        "galore_mem.optim.projection.project",
        lambda gradient, bases: bases["left"].t().mm(gradient).mm(bases["right"].t()),
    )
    monkeypatch.setattr(
        "galore_mem.optim.projection.factors", lambda low, bases: (bases["left"].mm(low), bases["right"])
    )
    assert eight_bit_deviation(shape, "full") < 1e-5
