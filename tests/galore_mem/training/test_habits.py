"""Habits of training loops that change next to nothing, counted in real steps: docs/habits.md quotes these figures."""

from collections.abc import Callable
from contextlib import nullcontext
from itertools import accumulate
from typing import Any

import pytest

torch = pytest.importorskip("torch")

SCALAR_BYTES = 512
SCALER_SCALARS = 8
"""Scale, growth tracker, their update's parts, the inverse, what was found, and the scaled loss with its gradient."""


def peak_of(step: Callable[[], object], live_bytes: Any) -> int:  # noqa: ANN401
    with live_bytes() as counter:
        step()
    changes: list[int] = [change for _, change, _, _ in counter.timeline()]
    return max(accumulate(changes))


def test_a_grad_scaler_holds_scalars_only(live_bytes: Any) -> None:  # noqa: ANN401
    model = torch.nn.Linear(256, 256)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    batch = torch.randn(64, 256)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)

    def plain() -> None:
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()

    def scaled() -> None:
        optimizer.zero_grad()
        scaler.scale(model(batch).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()

    plain()
    without = peak_of(plain, live_bytes)
    scaled()
    assert 0 <= peak_of(scaled, live_bytes) - without <= SCALER_SCALARS * SCALAR_BYTES


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
def test_per_layer_updates_step_once_for_all_micro_batches() -> None:
    """As whole updates do: same batches, same weights afterwards."""
    pytest.importorskip("transformers")
    from galore_mem.answers.settings import Settings, workloads
    from galore_mem.training.session import Session
    from profiles.shapes import ModelShape

    shape = ModelShape(
        name="small",
        model_type="llama",
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        vocab_size=64,
        max_position_embeddings=32,
    )

    def after(update: str) -> list[Any]:
        words: dict[str, Any] = {"seq": 8, "precision": "fp32", "grad_accumulation": 3, "update": update}
        (workload,) = workloads(shape, ("adamw",), Settings(**words))
        torch.manual_seed(0)
        session = Session(workload, "cpu", None)
        with torch.no_grad():
            for parameter in session.model.parameters():
                parameter.normal_(std=0.1)
        for iteration in ("first", "steady"):
            session.iterate(Nobody(), iteration)
        session.close()
        return [parameter.detach() for parameter in session.model.parameters()]

    for whole, layers in zip(after("whole"), after("per-layer"), strict=True):
        assert torch.allclose(whole, layers, atol=1e-7)


class Nobody:
    """A witness that looks away."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return lambda *args, **kwargs: nullcontext()


def test_clipping_scales_in_place(live_bytes: Any) -> None:  # noqa: ANN401
    from galore_mem.training.clipping import clip_gradients

    model = torch.nn.Sequential(*(torch.nn.Linear(512, 512, bias=False) for _ in range(4)))
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    assert peak_of(lambda: clip_gradients(list(model.parameters())), live_bytes) < 16 * SCALAR_BYTES
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    assert norm.item() == pytest.approx(1.0, rel=1e-4)
