"""A person's own step, traced."""

from collections.abc import Callable
from typing import Any

import pytest

from galore_mem.errors import UsageError

torch = pytest.importorskip("torch")


def make(peeks: bool) -> Callable[[], tuple[Any, Any, Callable[[], None]]]:
    def build() -> tuple[Any, Any, Callable[[], None]]:
        model = torch.nn.Sequential(torch.nn.Linear(4096, 4096), torch.nn.GELU(), torch.nn.Linear(4096, 10))
        optimizer = torch.optim.AdamW(model.parameters(), foreach=True)

        def step() -> None:
            loss = model(torch.randn(32, 4096)).square().mean()
            if peeks:
                assert loss.item() >= 0
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return model, optimizer, step

    return build


def test_own_step_holds_weights_gradients_and_states() -> None:
    import galore_mem as gm
    from galore_mem.answers.replay import replay_tape

    tape = gm.trace_step(make(peeks=False))
    (device,) = replay_tape(tape).devices
    weights = 4 * (4096 * 4096 + 4096 + 4096 * 10 + 10)
    assert device.replayed.peak_live_bytes == pytest.approx(5 * weights, rel=0.01)
    events = device.tape.events
    held = {events.text("category", row) for row in range(len(events))}
    assert {"weights", "gradients", "optimizer_states", "activations", "temporaries"} <= held


def test_needing_a_value_is_one_clear_line() -> None:
    import galore_mem as gm

    with pytest.raises(UsageError, match="needs the values of a tensor"):
        gm.trace_step(make(peeks=True))


def test_make_must_return_three() -> None:
    import galore_mem as gm

    with pytest.raises(UsageError, match="must return"):
        gm.trace_step(lambda: (1, 2))  # type: ignore[arg-type, return-value]
