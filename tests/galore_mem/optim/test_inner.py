"""Any optimizer goes inside: with a complete basis GaLore is that optimizer in rotated coordinates, or exactly it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from bitsandbytes.optim import LAMB
from torch import Tensor

from galore_mem.errors import UsageError
from galore_mem.optim import GaLore, GaLoreAdamW

Factory = Callable[..., torch.optim.Optimizer]


def run(
    build: Callable[[Tensor], torch.optim.Optimizer], *, steps: int = 6, dtype: torch.dtype = torch.float64
) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(12, 8, generator=generator).to(dtype))
    optimizer = build(parameter)
    for _ in range(steps):
        parameter.grad = torch.randn(12, 8, generator=generator).to(dtype)
        optimizer.step()
    return parameter.detach()


ROTATION_INVARIANT = {
    "sgd": (torch.optim.SGD, {"lr": 0.1}),
    "sgd-momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "sgd-coupled-decay": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2}),
    "sgd-coupled-decay-maximize": (torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.2, "maximize": True}),
    "sgd-foreach": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "foreach": True}),
}


@pytest.mark.parametrize(("factory", "options"), ROTATION_INVARIANT.values(), ids=ROTATION_INVARIANT)
def test_at_full_rank_a_rotation_invariant_optimizer_is_reproduced(factory: Factory, options: dict[str, Any]) -> None:
    """fp64, but the basis is found in fp32."""
    galore = run(
        lambda parameter: GaLore(
            [parameter], factory, rank=8, scale=1.0, update_proj_gap=1000, refresh="svd", **options
        )
    )
    assert torch.allclose(galore, run(lambda parameter: factory([parameter], **options)), atol=1e-4)


@pytest.mark.parametrize(
    ("factory", "options"),
    [
        (torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.3}),
        (torch.optim.AdamW, {"lr": 0.1, "amsgrad": True, "foreach": True}),
        (torch.optim.AdamW, {"lr": 0.1, "fused": True}),
        (torch.optim.Adafactor, {"lr": 0.1, "weight_decay": 0.1}),
        (torch.optim.RMSprop, {"lr": 0.1, "momentum": 0.5}),
        (torch.optim.Adam, {"lr": 0.1}),
    ],
    ids=["adamw-decay", "amsgrad-foreach", "fused", "adafactor", "rmsprop", "adam"],
)
def test_without_rank_the_inner_optimizer_is_reproduced_exactly(factory: Factory, options: dict[str, Any]) -> None:
    galore = run(lambda parameter: GaLore([parameter], factory, **options))
    assert torch.equal(galore, run(lambda parameter: factory([parameter], **options)))


@pytest.mark.parametrize("factory", [torch.optim.AdamW, torch.optim.Adafactor])
def test_an_identity_basis_reproduces_the_inner_optimizer(factory: Factory) -> None:
    """With the identity for a projector nothing is lost and nothing rotated, decay and parameter scale included."""

    def build(parameter: Tensor) -> torch.optim.Optimizer:
        optimizer = GaLore([parameter], factory, rank=8, scale=1.0, lr=0.1, weight_decay=0.3)
        optimizer.state[parameter].update(projector_right=torch.eye(8, dtype=torch.float64), projector_step=1)
        return optimizer

    plain = run(lambda parameter: factory([parameter], lr=0.1, weight_decay=0.3))
    assert torch.allclose(run(build), plain, rtol=1e-5, atol=1e-7)


class SignDescent(torch.optim.Optimizer):
    """A user's own optimizer, with a state of its own."""

    def __init__(self, params: list[Tensor], lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["seen"] = state.get("seen", 0) + 1
                parameter.add_(parameter.grad.sign(), alpha=-group["lr"] / state["seen"])


def test_a_users_own_optimizer_goes_inside() -> None:
    parameter = torch.nn.Parameter(torch.zeros(12, 8))
    optimizer = GaLore([parameter], SignDescent, rank=3, scale=1.0, lr=0.5)
    for _ in range(3):
        parameter.grad = torch.randn(12, 8)
        optimizer.step()
    assert optimizer.state[parameter]["seen"] == 3
    assert torch.linalg.matrix_rank(parameter.detach()) == 3


def test_a_factory_goes_inside() -> None:
    def factory(params: list[Tensor], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=lr, momentum=0.9)

    parameter = torch.nn.Parameter(torch.zeros(12, 8))
    parameter.grad = torch.randn(12, 8)
    optimizer = GaLore([parameter], factory, rank=3, lr=0.1)
    optimizer.step()
    assert optimizer.state[parameter]["momentum_buffer"].shape == (12, 3)
    assert optimizer.param_groups[0]["momentum"] == 0.9


def test_optimizers_that_need_a_closure_are_refused() -> None:
    with pytest.raises(UsageError, match="LBFGS needs a closure"):
        GaLore([torch.nn.Parameter(torch.zeros(4, 4))], torch.optim.LBFGS)


def test_optimizers_that_need_the_weights_norm_are_refused() -> None:
    with pytest.raises(UsageError, match="weight's norm"):
        GaLore([torch.nn.Parameter(torch.zeros(4, 4))], LAMB)


def test_torch_adafactor_without_a_least_scale_is_refused() -> None:
    parameter = torch.nn.Parameter(torch.ones(4, 4))
    parameter.grad = torch.randn(4, 4)
    optimizer = GaLore([parameter], torch.optim.Adafactor, rank=2, eps=(None, 0.0))
    with pytest.raises(UsageError, match="eps"):
        optimizer.step()


def test_an_error_of_the_inner_optimizer_leaves_no_proxy_behind() -> None:
    parameter = torch.nn.Parameter(torch.ones(4, 4))
    parameter.grad = torch.randn(4, 4)
    optimizer = GaLoreAdamW([parameter], rank=2, betas=(0.9, 0.999))
    optimizer.param_groups[0]["betas"] = None
    with pytest.raises(TypeError):
        optimizer.step()
    assert not optimizer.inner.optimizer.state
    assert not optimizer.inner.optimizer.param_groups
