"""The peak of resuming: real models and optimizers that take up a checkpoint, recorded."""

import io
from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest

from estimators.analytic.estimate import estimate, reach
from estimators.analytic.resuming import aliased_bytes, copied_by_loader, file_bytes
from estimators.analytic.stepping import stepping_of
from estimators.workload import Workload
from galore_mem.answers.settings import Settings, workloads
from profiles.shapes import ModelShape

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

SHAPE = ModelShape(
    name="tiny",
    model_type="llama",
    hidden_size=96,
    intermediate_size=160,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=24,
    vocab_size=700,
    max_position_embeddings=64,
)
SCALARS_BYTES = 512 * 4
"""Of a loader's own."""
RUNS: list[tuple[str, dict[str, Any]]] = [
    ("adamw", {}),
    ("adamw", {"optimizer_kernel": "fused", "precision": "fp32"}),
    ("adamw", {"master_weights": True}),
    ("sgd", {}),
    ("sgd-momentum", {}),
    ("adamw-8bit", {}),
    ("adafactor", {}),
    ("adafactor", {"precision": "fp32"}),
    ("galore-adamw", {"rank": 16}),
    ("galore-adamw-8bit", {"rank": 16}),
    ("galore-adamw", {"rank": 16, "implementation": "galore-torch"}),
    ("galore-adamw-8bit", {"rank": 16, "implementation": "galore-torch"}),
]


def workload_of(method: str, words: dict[str, Any]) -> Workload:
    (workload,) = workloads(SHAPE, (method,), Settings(seq=16, attention="eager", resume="device", **words))
    return workload


def session_of(workload: Workload) -> Any:  # noqa: ANN401
    from galore_mem.training.session import Session

    return Session(workload, "eager", None)


def checkpoint_of(session: Any) -> io.BytesIO:  # noqa: ANN401
    """A file of both, after one step."""
    from galore_mem.witness import Unwatched

    session.iterate(Unwatched(), "first")
    file = io.BytesIO()
    optimizer = session.optimizers[0]
    content = {"model": session.model.state_dict()}
    masters = getattr(optimizer, "masters", None)
    if masters is not None:  # Megatron-Core saves the copies beside the inner optimizer's states
        content |= {"optimizer": optimizer.inner.state_dict(), "masters": list(masters.values())}
    else:
        content["optimizer"] = optimizer.state_dict()
    torch.save(content, file)
    file.seek(0)
    return file


def take_up(session: Any, file: io.BytesIO) -> None:  # noqa: ANN401
    optimizer = session.optimizers[0]
    checkpoint = torch.load(file, map_location="cpu", weights_only=False)
    session.model.load_state_dict(checkpoint["model"])
    if "masters" in checkpoint:
        for master, saved in zip(optimizer.masters.values(), checkpoint["masters"], strict=True):
            master.copy_(saved)
        optimizer = optimizer.inner
    optimizer.load_state_dict(checkpoint["optimizer"])


@pytest.mark.parametrize(("method", "words"), RUNS)
def test_a_checkpoint_on_the_device_holds_what_is_planned(method: str, words: dict[str, Any], live_bytes: Any) -> None:  # noqa: ANN401
    workload = workload_of(method, words)
    file = checkpoint_of(session_of(workload))
    session = session_of(workload)
    there = [tensor for _, _, tensor in session.weights_in_order()]
    with live_bytes(there=there) as live:
        take_up(session, file)
    live.claim("there", there)
    held = max(accumulate(change for _, change, category, _ in live.timeline() if category != "there"))
    stepping = stepping_of(workload.model, workload.method, workload.precision)
    planned = file_bytes(stepping.groups, workload.method) + copied_by_loader(stepping.groups, workload.method)
    assert abs(held - planned) <= SCALARS_BYTES
    found = {moment.label: moment for moment in estimate(workload).moments}["first resume"]
    around = stepping.weights_bytes + stepping.buffers_bytes + stepping.masters_bytes
    assert found.live_bytes == around + planned
    assert aliased_bytes(stepping.groups, workload.method) <= stepping.states_bytes
    session.close()


@pytest.mark.parametrize(("method", "words"), RUNS)
def test_a_checkpoint_on_the_host_is_never_the_peak(method: str, words: dict[str, Any]) -> None:
    (workload,) = workloads(SHAPE, (method,), Settings(seq=16, attention="eager", resume="cpu", **words))
    footprint = estimate(workload)
    moments = {moment.label: moment for moment in footprint.moments}
    assert moments["first resume"].live_bytes < footprint.peak_live_bytes == reach(workload).live_bytes
    assert moments["first step"].live_bytes == moments["steady step"].live_bytes


def test_the_checkpoint_can_be_the_peak() -> None:
    wide = replace(SHAPE, vocab_size=100_000)  # so that weights count more than workspaces
    (workload,) = workloads(wide, ("adamw-8bit",), Settings(seq=1, attention="eager", resume="device"))
    footprint = estimate(workload)
    assert footprint.peak.label == "first resume"
    assert reach(workload).live_bytes == footprint.peak_live_bytes


def test_paged_states_come_back_as_ordinary_tensors() -> None:
    """The loader moves what was saved to the parameter's device: a new tensor, which nothing pages again."""
    pytest.importorskip("bitsandbytes")
    from galore_mem.training.offload import is_managed

    fresh, resumed = (
        workloads(SHAPE, ("paged-adamw-8bit",), Settings(seq=16, attention="eager", resume=resume))[0]
        for resume in ("none", "cpu")
    )
    wide = replace(SHAPE, vocab_size=2000)
    paged = stepping_of(wide, fresh.method, "bf16").states_bytes
    unpaged = stepping_of(wide, resumed.method, "bf16").states_bytes
    assert unpaged - paged == 2 * 2 * 2000 * 96, "one byte a moment: of the embedding and of the head"
    from galore_mem.training.optimizers import build_optimizer

    parameters = [torch.nn.Parameter(torch.zeros(2000, 96, device=device)) for device in ("cpu", "meta")]
    before, after = (build_optimizer(fresh.method, [("w", parameter)], frozenset()) for parameter in parameters)
    parameters[0].grad = torch.ones_like(parameters[0])
    before.step()
    assert is_managed(before.state[parameters[0]]["state1"])
    file = io.BytesIO()
    torch.save(before.state_dict(), file)
    file.seek(0)
    after.load_state_dict(torch.load(file, weights_only=False))
    assert not is_managed(after.state[parameters[1]]["state1"])
