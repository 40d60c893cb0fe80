"""Saving and resuming, bit for bit."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from galore_mem.errors import UsageError
from galore_mem.optim import GaLore, GaLoreAdafactor, GaLoreAdamW, GaLoreAdamW8bit, PerLayer

CLASSES = (GaLoreAdamW, GaLoreAdamW8bit, GaLoreAdafactor)


def make(cls: type[GaLore], dtype: torch.dtype, options: dict[str, Any]) -> tuple[torch.nn.Module, GaLore]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(96, 80), torch.nn.Tanh(), torch.nn.Linear(80, 70, bias=False)).to(dtype)
    named = dict(model.named_parameters())
    groups: list[dict[str, Any]] = [
        {"params": [named["0.bias"]], "rank": None},
        {"params": [named["0.weight"], named["2.weight"]], "rank": 60, "update_proj_gap": 3},
    ]
    return model, cls(groups, lr=1e-2, **options)


def train(model: torch.nn.Module, optimizer: GaLore | PerLayer, steps: range) -> None:
    dtype = next(model.parameters()).dtype
    for step in steps:
        batch = torch.randn(32, 96, generator=torch.Generator().manual_seed(step)).to(dtype)
        optimizer.zero_grad()
        model(batch).float().square().mean().backward()
        optimizer.step()


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


OPTIONS: dict[str, dict[str, Any]] = {
    "subspace": {},
    "randomized-staggered": {"refresh": "randomized", "stagger": True, "proj_type": "full"},
    "int4-stochastic": {"projector_storage": "int4", "stochastic_rounding": True, "seed": 5},
    "reproject-int8": {"moments": "reproject", "projector_storage": "int8"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cls", CLASSES)
def test_a_resumed_run_is_the_uninterrupted_one(cls: type[GaLore], dtype: torch.dtype, options: dict[str, Any]) -> None:
    whole_model, whole = make(cls, dtype, options)
    train(whole_model, whole, range(11))
    model, optimizer = make(cls, dtype, options)
    train(model, optimizer, range(5))
    saved = through_a_file({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    resumed_model, resumed = make(cls, dtype, {**options, "seed": 99})
    resumed_model.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["optimizer"])
    for before, after in zip(optimizer.state.values(), resumed.state.values(), strict=True):
        assert list(before) == list(after)
        for name, value in before.items():
            assert type(value) is type(after[name])
            if isinstance(value, Tensor):
                assert (value.dtype, value.shape) == (after[name].dtype, after[name].shape)
                assert value.untyped_storage().nbytes() == after[name].untyped_storage().nbytes()
    train(resumed_model, resumed, range(5, 11))
    assert same(resumed_model, whole_model)


@pytest.mark.parametrize("cls", CLASSES)
def test_checkpoints_pass_between_whole_and_per_layer(cls: type[GaLore]) -> None:
    whole_model, whole = make(cls, torch.float32, {})
    train(whole_model, whole, range(9))
    model, optimizer = make(cls, torch.float32, {})
    train(model, optimizer, range(3))
    layered_model, layered_optimizer = make(cls, torch.float32, {})
    layers = PerLayer(layered_optimizer)
    layered_model.load_state_dict(model.state_dict())
    layers.load_state_dict(through_a_file(optimizer.state_dict()))
    train(layered_model, layers, range(3, 6))
    back_model, back = make(cls, torch.float32, {})
    back_model.load_state_dict(layered_model.state_dict())
    back.load_state_dict(through_a_file(layers.state_dict()))
    train(back_model, back, range(6, 9))
    assert same(back_model, whole_model)


def test_a_loaded_learning_rate_reaches_per_layer_hooks() -> None:
    model, optimizer = make(GaLoreAdamW, torch.float32, {"weight_decay": 0.0})
    frozen = optimizer.state_dict()
    for group in frozen["param_groups"]:
        group["lr"] = 0.0
    layers = PerLayer(optimizer)
    layers.load_state_dict(frozen)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    train(model, layers, range(2))
    assert all(torch.equal(a, b.detach()) for a, b in zip(before, model.parameters(), strict=True))


def test_loading_keeps_nothing_of_the_checkpoint_alive() -> None:
    model, optimizer = make(GaLoreAdamW, torch.float32, {})
    train(model, optimizer, range(2))
    saved = optimizer.state_dict()
    other_model, other = make(GaLoreAdamW, torch.float32, {})
    other.load_state_dict(saved)
    pointers = {
        value.data_ptr() for state in saved["state"].values() for value in state.values() if torch.is_tensor(value)
    }
    assert not any(
        value.data_ptr() in pointers
        for state in other.state.values()
        for value in state.values()
        if torch.is_tensor(value)
    )
    del other_model


def test_eight_bit_states_share_their_maps_after_loading() -> None:
    model, optimizer = make(GaLoreAdamW8bit, torch.float32, {})
    train(model, optimizer, range(2))
    _, other = make(GaLoreAdamW8bit, torch.float32, {})
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    maps = {state["qmap1"].data_ptr() for state in other.state.values() if "qmap1" in state}
    assert len(maps) == 1


def test_devices_follow_the_parameters() -> None:
    model, optimizer = make(GaLoreAdamW, torch.float32, {})
    train(model, optimizer, range(2))
    other_model, _ = make(GaLoreAdamW, torch.float32, {})
    other_model.to("meta")
    moved = GaLoreAdamW(
        [
            {"params": list(other_model.parameters())[1:2], "rank": None},
            {"params": list(other_model.parameters())[::2], "rank": 60},
        ]
    )
    moved.load_state_dict(optimizer.state_dict())
    for state in moved.state.values():
        assert state["step"].device.type == "cpu"
        assert all(
            value.device.type == "meta" for name, value in state.items() if torch.is_tensor(value) and name != "step"
        )


def test_hooks_around_loading_run_once() -> None:
    model, optimizer = make(GaLoreAdamW, torch.float32, {})
    train(model, optimizer, range(2))
    _, other = make(GaLoreAdamW, torch.float32, {})
    calls: list[str] = []
    other.register_load_state_dict_pre_hook(lambda *_: calls.append("pre"))
    other.register_load_state_dict_post_hook(lambda _: calls.append(f"post {len(other.state)}"))
    other.load_state_dict(optimizer.state_dict())
    assert calls == ["pre", "post 3"]


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    model, optimizer = make(GaLoreAdamW, torch.float32, {})
    train(model, optimizer, range(2))
    saved = optimizer.state_dict()
    with pytest.raises(UsageError, match=r"inner optimizer is torch\.optim\.adamw\.AdamW, this one's is bitsandbytes"):
        make(GaLoreAdamW8bit, torch.float32, {})[1].load_state_dict(saved)
    with pytest.raises(UsageError, match="is bfloat16, in the checkpoint float32"):
        make(GaLoreAdamW, torch.bfloat16, {})[1].load_state_dict(saved)
    with pytest.raises(UsageError, match="newer galore-mem"):
        make(GaLoreAdamW, torch.float32, {})[1].load_state_dict({**saved, "galore": {**saved["galore"], "format": 2}})
    smaller = GaLoreAdamW(
        [{"params": [torch.nn.Parameter(torch.zeros(4))]}, {"params": [torch.nn.Parameter(torch.zeros(4, 4))] * 1}]
    )
    with pytest.raises(UsageError, match=r"is \[4\], in the checkpoint \[80\]"):
        smaller.load_state_dict(saved)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        GaLoreAdamW(list(model.parameters())[1:2], rank=None).load_state_dict(
            {**saved, "galore": {**saved["galore"], "shapes": [[80]], "dtypes": ["float32"]}}
        )
