"""What galore_torch 1.0 does badly, shown on it, and shown not to happen here."""

from typing import Any

import galore_torch
import pytest
import torch
from torch import Tensor

from galore_mem.optim import GaLoreAdafactor, GaLoreAdamW, GaLoreAdamW8bit, PerLayer

ROWS, COLUMNS, RANK = 640, 320, 16
Counter = Any


@pytest.fixture(autouse=True)
def _without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)


def matrix() -> torch.nn.Parameter:
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(ROWS, COLUMNS))
    parameter.grad = torch.randn(ROWS, COLUMNS)
    return parameter


def reference(name: str, parameters: list[torch.nn.Parameter], gap: int = 200) -> torch.optim.Optimizer:
    group = {"params": parameters, "rank": RANK, "update_proj_gap": gap, "scale": 0.25, "proj_type": "std"}
    extra = {"no_deprecation_warning": True} if name == "GaLoreAdamW" else {}
    made: torch.optim.Optimizer = getattr(galore_torch, name)([group], **extra)
    return made


@pytest.mark.parametrize(("name", "cls"), [("GaLoreAdamW", GaLoreAdamW), ("GaLoreAdafactor", GaLoreAdafactor)])
def test_no_factor_of_the_svd_stays_alive(name: str, cls: Any) -> None:  # noqa: ANN401
    theirs, mine = matrix(), matrix()
    other, ours = reference(name, [theirs]), cls([mine], rank=RANK, refresh="svd")
    other.step()
    ours.step()
    kept = other.state[theirs]["projector"].ortho_matrix.untyped_storage().nbytes()
    assert kept == 4 * COLUMNS * COLUMNS
    assert ours.state[mine]["projector_right"].untyped_storage().nbytes() == 4 * RANK * COLUMNS


def peak_of_step(optimizer: torch.optim.Optimizer, live_bytes: Counter) -> int:
    optimizer.step()
    with live_bytes(scalars=False) as counter:
        optimizer.step()
    peak: int = counter.peak_bytes
    return peak


def test_mapping_back_makes_no_full_size_temporary(live_bytes: Counter) -> None:
    full_size = 4 * ROWS * COLUMNS
    assert peak_of_step(reference("GaLoreAdamW", [matrix()]), live_bytes) >= 2 * full_size
    assert peak_of_step(GaLoreAdamW([matrix()], rank=RANK), live_bytes) < full_size / 2


def test_a_refresh_makes_no_full_size_copy(live_bytes: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("galore_mem.optim.refresh.CHUNK_BYTES", 2**17)
    full_size = 4 * ROWS * COLUMNS
    peaks = []
    for optimizer in (
        reference("GaLoreAdamW", [matrix()], gap=1),
        GaLoreAdamW([matrix()], rank=RANK, update_proj_gap=1),
    ):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.data, parameter.grad = parameter.data.bfloat16(), parameter.grad.bfloat16()
        peaks.append(peak_of_step(optimizer, live_bytes))
    assert peaks[0] > full_size
    assert peaks[1] < full_size / 2


def test_matrices_do_not_all_refresh_on_the_same_step() -> None:
    optimizer = GaLoreAdamW([matrix() for _ in range(4)], rank=RANK, update_proj_gap=8, stagger=True)
    optimizer.step()
    due = []
    for _ in range(8):
        due.append(
            sum(optimizer.refresh_is_due(optimizer.param_groups[0], p) for p in optimizer.param_groups[0]["params"])
        )
        optimizer.step()
    assert max(due) == 1
    assert sum(due) == 4


def test_small_eight_bit_tensors_are_updated() -> None:
    """The reference passes `skip_zeros` by mistake and never updates low-rank tensors under 4096 elements."""
    theirs = torch.nn.Parameter(torch.ones(40, 30))
    mine = torch.nn.Parameter(torch.ones(40, 30))
    other, ours = reference("GaLoreAdamW8bit", [theirs]), GaLoreAdamW8bit([mine], rank=RANK)
    torch.manual_seed(0)
    theirs.grad = mine.grad = torch.randn(40, 30)
    ours.step()
    assert not torch.equal(mine.detach(), torch.ones(40, 30))
    assert "unorm_vec" not in ours.state[mine]
    other.step()
    assert "unorm_vec" in other.state[theirs]


def test_the_eight_bit_step_leaves_the_gradient_and_makes_no_copy_of_the_weight(live_bytes: Counter) -> None:
    theirs, mine = matrix(), matrix()
    other, ours = reference("GaLoreAdamW8bit", [theirs]), GaLoreAdamW8bit([mine], rank=RANK)
    other.step()
    assert theirs.grad is not None
    assert theirs.grad.shape != theirs.shape
    kept = mine.grad
    with live_bytes(scalars=False) as counter:
        ours.step()
    assert mine.grad is kept
    theirs.grad = torch.randn_like(theirs)
    with live_bytes(scalars=False) as their_counter:
        other.step()
    full_size = 4 * ROWS * COLUMNS
    assert their_counter.peak_bytes >= 3 * full_size
    ours.step()
    with live_bytes(scalars=False) as counter:
        ours.step()
    assert counter.peak_bytes < full_size / 4


def test_adafactor_makes_no_full_size_transient(live_bytes: Counter) -> None:
    full_size = 4 * ROWS * COLUMNS
    theirs, mine = matrix(), matrix()
    for parameter in (theirs, mine):
        parameter.data, parameter.grad = parameter.data.bfloat16(), parameter.grad.bfloat16()  # type: ignore[union-attr]
    assert peak_of_step(reference("GaLoreAdafactor", [theirs]), live_bytes) > 3 * full_size
    assert peak_of_step(GaLoreAdafactor([mine], rank=RANK, lr=1e-3), live_bytes) < full_size / 2


def test_no_step_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference synchronises after every 8-bit parameter."""
    waits: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: waits.append("waited"))
    mine = [matrix(), matrix()]
    GaLoreAdamW8bit(mine, rank=RANK).step()
    assert not waits
    reference("GaLoreAdamW8bit", [matrix(), matrix()]).step()
    assert len(waits) == 2


def test_a_rank_above_the_smaller_side_works_from_the_larger_side() -> None:
    wide = torch.nn.Parameter(torch.ones(12, 40))
    wide.grad = torch.randn(12, 40, generator=torch.Generator().manual_seed(0))
    options = {"rank": 20, "update_proj_gap": 200, "scale": 0.25, "proj_type": "reverse_std"}
    theirs = galore_torch.GaLoreAdamW([{"params": [wide], **options}], no_deprecation_warning=True)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        theirs.step()
    ours = GaLoreAdamW([{"params": [wide], **options}])
    ours.step()
    assert ours.state[wide]["projector_right"].shape == (12, 40)
    assert not torch.equal(wide.detach(), torch.ones(12, 40))


def test_the_state_can_be_saved_without_pickled_objects(tmp_path: Any) -> None:  # noqa: ANN401
    theirs, mine = matrix(), matrix()
    other, ours = reference("GaLoreAdamW", [theirs]), GaLoreAdamW([mine], rank=RANK)
    for optimizer, file in ((other, tmp_path / "theirs"), (ours, tmp_path / "ours")):
        optimizer.step()
        torch.save(optimizer.state_dict(), file)
    with pytest.raises(Exception, match="GaLoreProjector"):
        torch.load(tmp_path / "theirs", weights_only=True)
    assert torch.load(tmp_path / "ours", weights_only=True)["galore"]["format"] == 1


def test_per_layer_accumulates_clips_and_saves() -> None:
    """As scripts run the reference per layer: one optimizer per parameter in a hook steps on every micro-batch."""
    theirs, mine = matrix(), matrix()
    steps: list[int] = []
    one = reference("GaLoreAdamW", [theirs])

    def hook(_: Tensor) -> None:
        one.step()
        one.zero_grad()
        steps.append(one.state[theirs]["step"])

    theirs.grad = mine.grad = None
    theirs.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
    layers = PerLayer(GaLoreAdamW([mine], rank=RANK), accumulation_steps=2, max_norm=1.0)
    for _ in range(2):
        torch.autograd.backward(theirs.square().sum())
        torch.autograd.backward(mine.square().sum())
        layers.step()
    assert steps == [1, 2]
    assert float(torch.nn.utils.clip_grad_norm_([theirs], 1.0)) == 0.0
    assert layers.optimizer.state[mine]["projector_step"] == 1
    assert layers.state_dict()["state"]
