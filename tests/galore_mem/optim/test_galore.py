"""The optimizer in a training loop: schedules, groups, odd gradients, dtypes, convolutions, scaling, staggering."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from galore_mem.errors import UsageError
from galore_mem.optim import GaLore, GaLoreAdafactor, GaLoreAdamW, GaLoreAdamW8bit
from galore_mem.optim.checkpoint import follow_device


def matrix(rows: int = 24, columns: int = 16, dtype: torch.dtype = torch.float32) -> torch.nn.Parameter:
    parameter = torch.nn.Parameter(torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)).to(dtype))
    parameter.grad = torch.randn(rows, columns, generator=torch.Generator().manual_seed(1)).to(dtype)
    return parameter


def grow_gradient(parameter: Tensor, seed: int) -> None:
    parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)).to(parameter.dtype)


def test_a_changed_learning_rate_takes_effect() -> None:
    parameter = matrix()
    optimizer = GaLoreAdamW([parameter], rank=4, lr=0.1, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.0)
    optimizer.step()
    scheduler.step()
    before = parameter.detach().clone()
    grow_gradient(parameter, 2)
    optimizer.step()
    assert torch.equal(parameter.detach(), before)


def test_one_cycle_reaches_the_inner_betas() -> None:
    parameter = matrix()
    optimizer = GaLoreAdamW([parameter], rank=4)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["betas"][0] != 0.9


def test_groups_can_be_added_and_differ() -> None:
    first, second, vector = matrix(), matrix(30, 40), torch.nn.Parameter(torch.ones(7))
    vector.grad = torch.ones(7)
    optimizer = GaLoreAdamW([first], rank=4)
    optimizer.step()
    optimizer.add_param_group({"params": [second, vector], "rank": 2, "proj_type": "right", "lr": 1.0})
    optimizer.step()
    assert optimizer.state[second]["exp_avg"].shape == (30, 2)
    assert optimizer.state[vector]["exp_avg"].shape == (7,)
    assert optimizer.state[first]["projector_step"] == 2


def test_a_bad_group_leaves_the_optimizer_as_it_was() -> None:
    optimizer = GaLoreAdamW([matrix()], rank=4)
    with pytest.raises(UsageError, match="use one of: std"):
        optimizer.add_param_group({"params": [matrix()], "proj_type": "standard"})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("options", [{"rank": 0}, {"rank": 1.5}, {"rank": True}, {"rank": 4, "update_proj_gap": 0}])
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="give a positive integer"):
        GaLoreAdamW([matrix()], **options)


def test_a_missing_gradient_skips_the_parameter() -> None:
    present, absent = matrix(), matrix()
    absent.grad = None
    before = absent.detach().clone()
    optimizer = GaLoreAdamW([present, absent], rank=4)
    optimizer.step()
    assert torch.equal(absent.detach(), before)
    assert not optimizer.state[absent]


@pytest.mark.parametrize("rank", [None, 4])
def test_a_sparse_gradient_is_refused(rank: int | None) -> None:
    embedding = torch.nn.Embedding(20, 8, sparse=True)
    embedding(torch.tensor([1, 2])).sum().backward()
    optimizer = GaLoreAdamW(embedding.named_parameters(), rank=rank)
    with pytest.raises(UsageError, match="gradient of weight is sparse"):
        optimizer.step()


def test_a_closure_is_called_once_with_gradients() -> None:
    parameter = matrix()
    optimizer = GaLoreAdamW([parameter], rank=4)
    calls = []

    def closure() -> float:
        optimizer.zero_grad()
        loss = (parameter * parameter).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        calls.append(loss.item())
        return loss.item()

    assert optimizer.step(closure) == calls[0]
    assert len(calls) == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_never_destroys_a_projector(bad: float) -> None:
    parameter = matrix()
    optimizer = GaLoreAdamW([parameter], rank=4, update_proj_gap=2)
    for _ in range(2):
        optimizer.step()
    state = copy.deepcopy(optimizer.state[parameter])
    weight = parameter.detach().clone()
    assert parameter.grad is not None
    parameter.grad[3, 3] = bad
    optimizer.step()  # a refresh is due
    assert torch.equal(parameter.detach(), weight)
    for name, value in state.items():
        assert torch.equal(torch.as_tensor(optimizer.state[parameter][name]), torch.as_tensor(value))
    grow_gradient(parameter, 5)
    optimizer.step()
    assert not torch.equal(optimizer.state[parameter]["projector_right"], state["projector_right"])
    assert "projector_refresh_postponed" not in optimizer.state[parameter]


def test_a_bad_first_gradient_is_skipped() -> None:
    parameter = matrix()
    parameter.grad = torch.full_like(parameter, float("nan"))
    optimizer = GaLoreAdamW([parameter], rank=4)
    optimizer.step()
    assert parameter.isfinite().all()
    grow_gradient(parameter, 5)
    optimizer.step()
    assert parameter.isfinite().all()
    assert "projector_right" in optimizer.state[parameter]


def test_a_zero_gradient_has_no_directions() -> None:
    """LoRA-like parameters start with one: their projector is found as soon as there is something to find."""
    parameter = matrix()
    parameter.grad = torch.zeros_like(parameter)
    optimizer = GaLoreAdamW([parameter], rank=4)
    optimizer.step()
    assert "projector_right" not in optimizer.state[parameter]
    grow_gradient(parameter, 5)
    optimizer.step()
    assert parameter.grad is not None
    right = optimizer.state[parameter]["projector_right"]
    captured = (parameter.grad @ right.t()).square().sum() / torch.linalg.svdvals(parameter.grad)[:4].square().sum()
    assert float(captured) > 0.98


@pytest.mark.parametrize("cls", [GaLoreAdamW, GaLoreAdamW8bit, GaLoreAdafactor])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("storage", ["parameter", "float32", "int8", "int4"])
@pytest.mark.parametrize("moments", ["keep", "reset", "reproject"])
def test_every_combination_descends(cls: type[GaLore], dtype: torch.dtype, storage: Any, moments: Any) -> None:  # noqa: ANN401
    """The gradient keeps its size, so every step has full strength; fp16 needs an eps that fp16 can hold."""
    torch.manual_seed(0)
    target = torch.randn(96, 80)
    parameter = torch.nn.Parameter(torch.zeros(96, 80).to(dtype))
    eps: dict[str, Any] = {} if cls is GaLoreAdafactor else {"eps": 1e-3}
    optimizer = cls(
        [parameter], rank=60, lr=0.1, scale=1.0, update_proj_gap=7, projector_storage=storage, moments=moments, **eps
    )
    for _ in range(40):
        parameter.grad = (parameter.detach().float() - target).to(dtype)
        optimizer.step()
    assert float((parameter.detach().float() - target).square().mean()) < 0.2


def test_convolutions_are_projected_as_matrices() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 16, 5)
    optimizer = GaLoreAdamW(layer.named_parameters(), rank=4)
    before = layer.weight.detach().clone()
    layer(torch.randn(2, 3, 9, 9)).square().sum().backward()
    optimizer.step()
    assert optimizer.state[layer.weight]["projector_left"].shape == (16, 4)
    assert optimizer.state[layer.weight]["exp_avg"].shape == (4, 75)
    decayed = before * (1 - 1e-3 * 1e-2)
    assert torch.linalg.matrix_rank((layer.weight.detach() - decayed).flatten(1), rtol=1e-3) == 4


def test_channels_last_weights_are_refused() -> None:
    layer = torch.nn.Conv2d(3, 16, 5).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="not contiguous"):
        GaLoreAdamW(layer.named_parameters(), rank=4)


def test_complex_weights_are_refused() -> None:
    with pytest.raises(UsageError, match="complex64"):
        GaLoreAdamW([torch.nn.Parameter(torch.zeros(4, 4, dtype=torch.complex64))], rank=2)


def test_grad_scaler_skips_and_unscales() -> None:
    parameter = matrix()
    plain = torch.nn.Parameter(parameter.detach().clone())
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer, unscaled = GaLoreAdamW([parameter], rank=4), GaLoreAdamW([plain], rank=4)
    scaler.scale(torch.zeros(()))
    for seed, bad in ((2, False), (3, True), (4, False)):
        grow_gradient(plain, seed)
        assert plain.grad is not None
        parameter.grad = plain.grad * scaler.get_scale()
        if bad:
            parameter.grad[0, 0] = float("inf")
        else:
            unscaled.step()
        scaler.step(optimizer)
        scaler.update()
    assert torch.allclose(parameter, plain, atol=1e-6)


def test_staggering_spreads_refreshes_over_the_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = [matrix() for _ in range(5)]
    steps: dict[int, list[int]] = {}
    optimizer = GaLoreAdamW(parameters, rank=4, update_proj_gap=10, stagger=True)
    for step in range(21):
        steps[step] = [
            index
            for index, parameter in enumerate(parameters)
            if optimizer.refresh_is_due(optimizer.param_groups[0], parameter)
        ]
        optimizer.step()
    assert steps[0] == [0, 1, 2, 3, 4]
    assert {step: due for step, due in steps.items() if due and step} == {
        2: [1], 4: [2], 6: [3], 8: [4], 10: [0], 12: [1], 14: [2], 16: [3], 18: [4], 20: [0]
    }  # fmt: skip


def test_stochastic_rounding_repeats_itself_and_differs_from_nearest() -> None:
    def train(**options: Any) -> Tensor:  # noqa: ANN401
        parameter = matrix(dtype=torch.bfloat16)
        optimizer = GaLoreAdamW([parameter], rank=4, lr=1e-4, **options)
        for _ in range(5):
            optimizer.step()
        return parameter.detach()

    one = train(stochastic_rounding=True, seed=1)
    assert torch.equal(one, train(stochastic_rounding=True, seed=1))
    assert not torch.equal(one, train(stochastic_rounding=True, seed=2))
    assert not torch.equal(one, train())


def test_reprojected_moments_follow_the_basis() -> None:
    """Two bases of the same plane: the first moment, mapped back to full size, stays what it was."""
    generator = torch.Generator().manual_seed(0)
    rows, plane = torch.randn(24, 4, generator=generator), torch.randn(4, 16, generator=generator)
    parameter = matrix()
    optimizer = GaLoreAdamW([parameter], rank=4, update_proj_gap=3, moments="reproject", betas=(0.9, 0.99))
    state = optimizer.state[parameter]
    expected = torch.zeros(24, 16)
    for step in range(4):
        coordinates = torch.randn(4, 4, generator=generator)
        parameter.grad = rows @ coordinates @ plane
        expected = 0.9 * expected + 0.1 * parameter.grad
        optimizer.step()
        assert torch.allclose(state["exp_avg"] @ state["projector_right"], expected, atol=1e-3), step
        assert (state["exp_avg_sq"] >= 0).all()


def test_reprojecting_unknown_states_is_refused() -> None:
    parameter = matrix()
    optimizer = GaLore([parameter], torch.optim.Rprop, rank=4, update_proj_gap=1, moments="reproject")
    optimizer.step()
    with pytest.raises(UsageError, match="'prev'"):
        optimizer.step()


def test_reset_moments_begin_again() -> None:
    parameter = matrix()
    optimizer = GaLoreAdamW([parameter], rank=4, update_proj_gap=3, moments="reset")
    for _ in range(4):
        optimizer.step()
    assert optimizer.state[parameter]["step"] == 1
    assert optimizer.state[parameter]["projector_step"] == 4


def test_states_follow_a_moved_model() -> None:
    """`meta` stands for another device: no GPU is needed to see what moves."""
    parameter = matrix()
    optimizer = GaLoreAdamW([parameter], rank=4)
    optimizer.step()
    state = optimizer.state[parameter]
    follow_device(state, parameter)
    assert state["exp_avg"].device.type == "cpu"
    follow_device(state, parameter.to("meta"))
    assert state["step"].device.type == "cpu"
    assert all(value.device.type == "meta" for value in state.values() if isinstance(value, Tensor) and value.dim())


def test_a_copy_and_a_pickle_step_like_the_original() -> None:
    parameter = matrix()
    optimizer = GaLoreAdamW([parameter], rank=4)
    optimizer.step()
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        other = twin.param_groups[0]["params"][0]
        other.grad = parameter.grad
        twin.step()
        mine = parameter.detach().clone()
        again = GaLoreAdamW([torch.nn.Parameter(mine)], rank=4)
        again.load_state_dict(optimizer.state_dict())
        clone = again.param_groups[0]["params"][0]
        clone.grad = parameter.grad
        again.step()
        assert torch.equal(clone.detach(), other.detach())
