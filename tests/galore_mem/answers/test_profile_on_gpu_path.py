"""The way of a measurement up to the device's own calls, on a GPU made of CPU tensors."""

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from estimators.workload import Workload
from galore_mem.answers.settings import Settings, workloads
from galore_mem.errors import NoDeviceError
from profiles.shapes import ModelShape

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

SHAPE = ModelShape(
    name="small",
    model_type="llama",
    hidden_size=128,
    intermediate_size=352,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    vocab_size=500,
    max_position_embeddings=128,
)
Fake = Callable[..., Any]


def small(method: str, **settings: Any) -> Workload:  # noqa: ANN401
    rank = {"rank": 16} if method.startswith("galore") else {}
    (workload,) = workloads(SHAPE, (method,), Settings(**{"seq": 48, **rank, **settings}))
    return workload


def models() -> set[int]:
    """Models that live."""
    return {id(found) for found in gc.get_objects() if type(found).__name__ == "LlamaForCausalLM"}


def test_a_measured_run_agrees_with_the_trace(fake_gpu: Fake) -> None:
    from galore_mem.answers.profile import profile
    from galore_mem.answers.recorded import resident_bytes
    from galore_mem.answers.steps import record

    gpu = fake_gpu()
    workload = small("galore-adamw-8bit", update="per-layer")
    before = models()
    result = profile(workload, device="cuda", gpus="4090")
    assert gpu.closed
    assert models() <= before, "the model's memory was not given back"
    assert result.ending == "complete"
    assert result.footprint.source == result.tape.source == "measured"
    traced = resident_bytes(record(workload, "cpu"))
    found = dict(result.footprint.resident_bytes)
    host_bytes = found.pop("weights") - traced.pop("weights")
    assert 0 <= host_bytes <= 4096  # quantisation maps that a GPU's host keeps, and that this fake takes for its own
    assert found == traced
    assert result.unattributed_bytes < 0.01 * result.footprint.peak_live_bytes
    assert [step.kind for step in result.steps] == ["first", "steady", "refresh"]
    assert all(step.seconds["backward"] > 0 for step in result.steps)
    assert result.steps[0].start < result.steps[1].start < result.steps[2].start
    assert max(step.peak_allocated_bytes or 0 for step in result.steps) == result.footprint.peak_allocated_bytes
    assert result.footprint.peak_allocated_bytes == result.footprint.peak_live_bytes
    assert result.footprint.process_bytes == result.footprint.peak_reserved_bytes + (400 << 20)
    table = result.tape.devices[0].events
    tags = {table.text("tag", row) for row in range(len(table))}
    assert "first forward_end model.layers.0.mlp.up_proj" in tags
    assert result.overhead is not None
    assert result.overhead.plain_peak_allocated_bytes > 0
    assert result.attention_kernel == "flash"
    content = json.loads(json.dumps(result.to_dict()))
    assert content["recording_overhead"]["plain_seconds"] > 0
    assert content["environment"]["gpu"] == "a fake"
    assert 0 < len(content["process_samples"]) <= 201
    assert max(size for _, size in content["process_samples"]) == result.footprint.process_bytes


def test_running_out_is_answered_with_what_lived_and_the_way_out(fake_gpu: Fake, tmp_path: Path) -> None:
    from galore_mem.answers.profile import profile
    from galore_mem.tapes.file import write_tape
    from galore_mem.tapes.recording import read_recording

    fake_gpu(capacity_bytes=3_000_000)
    result = profile(small("adamw"), device="cuda", gpus="4090")
    assert result.ending == "out-of-memory"
    found = result.ran_out
    assert found is not None
    assert found.requested_bytes > 0
    assert found.live_bytes <= 3_000_000 < found.live_bytes + found.requested_bytes + 512
    assert found.by_category["weights"] > 0
    assert found.largest[0].category == "weights"
    assert (found.iteration, found.window) in {("first", "backward_end"), ("first", "step")}
    assert result.overhead is None
    assert result.statistics["num_ooms"] == 1
    write_tape(tmp_path / "out.json.gz", result.tape)
    (device,) = read_recording(tmp_path / "out.json.gz").devices
    assert any(mark.kind == "oom" for mark in device.marks)
    json.dumps(result.to_dict())


def test_running_out_while_the_model_is_built(fake_gpu: Fake) -> None:
    from galore_mem.answers.profile import profile

    fake_gpu(capacity_bytes=500_000)
    result = profile(small("adamw"), device="cuda")
    assert result.ending == "out-of-memory"
    assert result.ran_out is not None
    assert set(result.ran_out.by_category) == {"weights"}
    assert result.ran_out.window == "between"


def test_an_interrupt_keeps_the_history(fake_gpu: Fake) -> None:
    from galore_mem.answers.profile import profile

    fake_gpu(interrupt_at=600)
    result = profile(small("adamw"), device="cuda")
    assert result.ending == "interrupted"
    assert len(result.tape.devices[0].events) >= 600
    assert result.footprint.peak_live_bytes > 0
    assert len(result.steps) == 1


def test_without_a_gpu_the_reason_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from galore_mem.answers.profile import profile

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("galore_mem.profiler.cuda.why_no_gpu", lambda: None)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(NoDeviceError) as refusal:
        profile(small("sgd"), device="cuda")
    assert refusal.value.exit_code == 3
    assert "build for CPUs" in str(refusal.value)
    assert "--device cpu" in str(refusal.value)
