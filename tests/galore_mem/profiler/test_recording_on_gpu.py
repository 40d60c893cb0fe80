"""Recording on a real GPU: nothing is lost, everything is named, and the run survives what ends it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from estimators.workload import Workload
from galore_mem.answers.settings import Settings, workloads
from profiles.models import find_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning"),
]
SHAPE = replace(find_model("llama-130m").shape, name="llama-130m, 3 layers", num_hidden_layers=3)
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _gpu() -> Iterator[None]:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def run_of(method: str, **settings: Any) -> Workload:  # noqa: ANN401
    rank = {"rank": 64} if method.startswith("galore") else {}
    (workload,) = workloads(SHAPE, (method,), Settings(**{"seq": 256, "batch": 2, **rank, **settings}))
    return workload


RUNS: list[tuple[str, dict[str, Any]]] = [
    ("adamw", {}),
    ("adamw", {"checkpointing": "full", "grad_accumulation": 2}),
    ("galore-adamw", {}),
    ("galore-adamw", {"update": "per-layer"}),
    ("adamw", {"alloc_conf": "expandable_segments:True"}),
]


@pytest.mark.parametrize(("method", "settings"), RUNS)
def test_a_recorded_run_is_whole_and_explained(method: str, settings: dict[str, Any]) -> None:
    from galore_mem.answers.profile import profile

    result = profile(run_of(method, **settings), device="cuda")
    assert result.ending == "complete"
    (device,) = result.tape.devices
    assert device.history == "complete"
    assert not device.notes
    assert result.replay.first_difference is None, "the replica of the allocator reserves something else"
    footprint = result.footprint
    assert footprint.peak_live_bytes <= footprint.peak_allocated_bytes <= footprint.peak_reserved_bytes
    assert footprint.peak_reserved_bytes < footprint.process_bytes
    assert footprint.peak_allocated_bytes == result.replay.replayed.peak_allocated_bytes
    assert result.unattributed_bytes < 0.01 * footprint.peak_live_bytes
    assert {"weights", "activations", "workspaces"} <= {life.category for life in result.largest} | set(
        footprint.peak.by_category
    )
    assert [step.kind for step in result.steps] == [
        "first",
        "steady",
        "refresh" if method.startswith("galore") else "steady",
    ]
    assert all(step.seconds["forward"] > 0 and step.seconds["backward"] > 0 for step in result.steps)
    assert result.overhead is not None
    difference = result.overhead.recorded_peak_allocated_bytes - result.overhead.plain_peak_allocated_bytes
    assert abs(difference) <= MIB, "watching holds memory of its own"
    assert result.attention_kernel in ("flash", "efficient", "cudnn", "math")


@pytest.mark.parametrize(("method", "settings"), RUNS[:4])
def test_trace_and_measurement_agree(method: str, settings: dict[str, Any]) -> None:
    from galore_mem.answers.profile import profile
    from galore_mem.answers.trace import trace

    workload = run_of(method, **settings)
    measured = profile(workload, device="cuda", steps=2)
    traced = trace(replace(workload, attention=measured.attention_kernel), gpus="local")  # type: ignore[arg-type]
    assert dict(measured.footprint.resident_bytes) == dict(traced.footprint.resident_bytes)
    for peak in ("peak_live_bytes", "peak_allocated_bytes", "peak_reserved_bytes"):
        found, predicted = getattr(measured.footprint, peak), getattr(traced.footprint, peak)
        assert found == pytest.approx(predicted, rel=0.01), peak


def test_running_out_is_survived() -> None:
    import torch

    from galore_mem.answers.profile import profile

    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(600 * MIB / total)
    result = profile(run_of("adamw", batch=16, seq=1024), device="cuda")
    assert result.ending == "out-of-memory"
    assert result.ran_out is not None
    assert result.ran_out.requested_bytes > 0
    assert result.ran_out.by_category["weights"] > 0
    assert (result.ran_out.reserved_bytes or 0) <= 600 * MIB
    assert result.ran_out.ways
    torch.cuda.set_per_process_memory_fraction(1.0)
    assert profile(run_of("adamw"), device="cuda", steps=1).ending == "complete"


def test_the_count_of_allocations_is_the_length_of_the_history() -> None:
    import torch

    from galore_mem.profiler.cuda import Gpu

    gpu = Gpu()
    try:
        with gpu.recording():
            kept = [torch.empty(size, device="cuda") for size in (1, 1000, 1_000_000)]
            kept.pop()
            _ = kept[0] + kept[0]
            entries = gpu.snapshot()["device_traces"][gpu.index]
            counted = sum(entry["action"] in ("alloc", "free_requested") for entry in entries)
            assert gpu.position() == counted >= 5
    finally:
        gpu.close()


def test_the_driver_sees_what_the_process_takes() -> None:
    import torch

    from galore_mem.profiler.cuda import Gpu

    pytest.importorskip("pynvml")
    gpu = Gpu()
    try:
        torch.zeros(1, device="cuda")
        before = gpu.process.read()
        block = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
        after = gpu.process.read()
        assert before is not None
        assert after is not None
        assert after - before >= block.nbytes
    finally:
        gpu.close()


def test_a_loop_of_ones_own() -> None:
    import torch

    import galore_mem as gm

    model = torch.nn.Sequential(*[torch.nn.Linear(1024, 1024, device="cuda") for _ in range(4)])
    optimizer = torch.optim.AdamW(model.parameters())
    with gm.profile(device="cuda") as p:
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.ones(64, 1024, device="cuda")).square().mean().backward()
            optimizer.step()
            p.step()
    (device,) = p.tape.devices
    table = device.events
    births = [row for row, event in enumerate(table.rows()) if event[0] == "alloc"]
    sizes: dict[str, int] = {}
    for row in births:
        name = table.text("category", row)
        sizes[name] = sizes.get(name, 0) + table.size[row]
    weights = sum(parameter.nbytes for parameter in model.parameters())
    assert sizes["gradients"] == 2 * weights
    assert sizes["optimizer_states"] == 2 * weights
    assert sizes["activations"] > 0
    assert [step.kind for step in p.steps] == ["first", "steady"]
