"""Training steps of a person's own, recorded as they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from galore_mem.errors import UsageError
from galore_mem.tapes.recording import read_recording
from galore_mem.tapes.tape import Tape

torch = pytest.importorskip("torch")

WIDTH = 64


def profile(*args: Any, **words: Any) -> Any:  # noqa: ANN401
    import galore_mem as gm

    return gm.profile(*args, **words)


def network() -> Any:  # noqa: ANN401
    layers = [torch.nn.Linear(WIDTH, WIDTH) for _ in range(3)]
    return torch.nn.Sequential(*layers)


def train(model: Any, optimizer: Any, p: Any, steps: int = 3) -> None:  # noqa: ANN401
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(torch.ones(16, WIDTH)), torch.zeros(16, WIDTH)).backward()
        optimizer.step()
        p.step()


def born(tape: Tape) -> dict[str, int]:
    """Bytes born by category."""
    table = tape.devices[0].events
    totals: dict[str, int] = {}
    for row, event in enumerate(table.rows()):
        if event[0] == "alloc":
            name = table.text("category", row)
            totals[name] = totals.get(name, 0) + event[2]
    return totals


def test_everything_is_named_without_being_told(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    with profile(tmp_path / "own.json.gz", device="cpu") as p:
        train(model, optimizer, p)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    totals = born(p.tape)
    assert totals["weights"] == weights
    assert totals["optimizer_states"] == 2 * weights
    assert totals["gradients"] == 3 * weights
    assert totals["activations"] > 0
    assert [step.kind for step in p.steps] == ["first", "steady", "steady"]
    assert set(p.steps[0].seconds) == {"forward", "backward", "step"}
    same = read_recording(tmp_path / "own.json.gz")
    assert same.source == "replayed"
    assert same.metadata["ending"] == "complete"
    iterations = [mark.name for mark in same.devices[0].marks if mark.kind == "iteration"]
    assert iterations[:2] == ["first", "steady"]
    modules = {same.devices[0].events.text("module", row) for row in range(len(same.devices[0].events))}
    assert {"0", "1", "2"} <= modules


def test_what_lived_before_is_counted_from_the_beginning_where_it_is_given() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    model(torch.ones(1, WIDTH)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    with profile(model=model, optimizer=optimizer, device="cpu") as p:
        train(model, optimizer, p, steps=1)
    table = p.tape.devices[0].events
    weights = sum(parameter.nbytes for parameter in model.parameters())
    first = [table.text("category", row) for row in range(12)]
    assert first == ["weights"] * 6 + ["optimizer_states"] * 6
    assert born(p.tape)["optimizer_states"] == weights


def test_galore_is_seen_to_refresh() -> None:
    from galore_mem.optim import GaLoreAdamW

    model = network()
    matrices = [layer.weight for layer in model]
    rest = [layer.bias for layer in model]
    optimizer = GaLoreAdamW([{"params": rest}, {"params": matrices, "rank": 8, "update_proj_gap": 2, "scale": 1.0}])
    with profile(model=model, device="cpu") as p:
        train(model, optimizer, p, steps=3)
    assert [step.kind for step in p.steps] == ["first", "steady", "refresh"]
    assert born(p.tape)["projectors"] == 3 * 8 * WIDTH * 4


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (torch.OutOfMemoryError("CUDA out of memory."), "out-of-memory"),
        (ValueError("a fault of one's own"), "failed"),
    ],
)
def test_a_broken_off_recording_is_a_valid_file(tmp_path: Path, error: BaseException, ending: str) -> None:
    model = network()

    def run() -> None:
        with profile(tmp_path / "own.json.gz", device="cpu"):
            model(torch.ones(16, WIDTH))
            raise error

    with pytest.raises(type(error)):
        run()
    tape = read_recording(tmp_path / "own.json.gz")
    assert tape.metadata["ending"] == ending
    assert len(tape.devices[0].events) > 6


def test_hooks_are_gone_afterwards() -> None:
    from torch.nn.modules import module as hooks

    before = (len(hooks._global_forward_pre_hooks), len(hooks._global_forward_hooks))
    model = network()
    with profile(device="cpu") as p:
        model(torch.ones(1, WIDTH))
    length = len(p.tape.devices[0].events)
    model(torch.ones(1, WIDTH))
    assert len(p.tape.devices[0].events) == length
    assert (len(hooks._global_forward_pre_hooks), len(hooks._global_forward_hooks)) == before


def test_misuse_is_one_line() -> None:
    with pytest.raises(UsageError, match="cannot be recorded"):
        profile(device="tpu")
    with profile(device="cpu") as p, pytest.raises(UsageError, match="has not ended"):
        _ = p.tape


def test_the_way_on_a_gpu(fake_gpu: Callable[..., Any]) -> None:
    """Up to the device's own calls: hooks, stamps, the snapshot that the allocator would write."""
    fake_gpu()
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    with profile(device="cuda") as p:
        train(model, optimizer, p)
    assert p.tape.source == "measured"
    weights = sum(parameter.nbytes for parameter in model.parameters())
    totals = born(p.tape)
    assert totals["gradients"] == 3 * weights
    assert totals["optimizer_states"] == 2 * weights
    assert totals["activations"] > 0
    assert set(p.steps[1].seconds) == {"forward", "backward", "step"}
