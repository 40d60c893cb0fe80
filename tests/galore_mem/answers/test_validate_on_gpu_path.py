"""The protocol of one row on a GPU made of CPU tensors, up to the device's own calls."""

import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from estimators.workload import Workload
from galore_mem.answers.names import Card
from galore_mem.answers.settings import Settings, workloads
from galore_mem.answers.validation import protocol, reruns
from galore_mem.answers.validation.protocol import Bench, Job
from profiles.gpus import MIB, find_gpu
from profiles.shapes import ModelShape

for package in ("torch", "transformers", "accelerate"):
    pytest.importorskip(package)
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

CONTEXT_BYTES = 400 * MIB
SHAPE = ModelShape(
    name="tiny",
    model_type="llama",
    hidden_size=64,
    intermediate_size=176,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    vocab_size=500,
    max_position_embeddings=128,
)


class ShortGpu:
    """Needs so much, and remembers what it was given."""

    def __init__(self, needs: int) -> None:
        self.needs = needs
        self.limits: list[int] = []

    def cap(self, limit_bytes: int | None) -> None:
        if limit_bytes is not None:
            self.limits.append(limit_bytes)

    def release(self) -> None:
        pass

    def train(self, workload: Workload) -> None:
        if self.limits[-1] < self.needs:
            raise MemoryError


Place = Callable[..., None]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    """Put a GPU in the place of the machine's."""
    name = "galore_mem_tests_fake_gpu"
    if name not in sys.modules:
        spec = spec_from_file_location(name, Path(__file__).parents[2] / "fake_gpu.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])

    def put(short: ShortGpu, **words: Any) -> None:  # noqa: ANN401
        gpu = sys.modules[name].FakeGpu(**words)
        monkeypatch.setattr("galore_mem.profiler.cuda.Gpu", lambda: gpu)
        monkeypatch.setattr(reruns, "TorchGpu", lambda: short)

    return put


def job(folder: Path) -> Job:
    (workload,) = workloads(SHAPE, ("adamw",), Settings(seq=32, attention="math"))
    environment = {"torch": "2.11.0", "transformers": "5.17.0"}
    card = Card(gpu=find_gpu("4090"))
    bench = Bench(device="cuda", name="NVIDIA X", card=card, environment=environment, folder=str(folder))
    return Job(row="tiny", workload=workload, bench=bench)


@pytest.mark.parametrize(("needs", "survived"), [(0, True), (1 << 40, False)])
def test_measured_and_run_again_under_each_bound(place: Place, tmp_path: Path, needs: int, survived: bool) -> None:
    short = ShortGpu(needs)
    place(short)
    row = job(tmp_path)
    before = protocol.predicted(row)
    assert (before.outcome, before.source, before.measured) == ("predicted", "measured", None)
    record = protocol.measured(row, before)
    assert record == row.shelf.stored()
    assert record.outcome == "measured"
    assert record.predicted == before.predicted
    assert record.environment["gpu"] == "a fake"
    assert record.measured is not None
    assert record.measured.context_bytes == CONTEXT_BYTES
    traced = record.predicted["traced"]
    without_workspaces = traced.peak_live_bytes - traced.at_peak_bytes["workspaces"]  # of which the fake has none
    assert record.measured.peak_live_bytes == pytest.approx(without_workspaces, rel=0.01)
    assert dict(record.measured.resident_bytes) == dict(traced.resident_bytes)
    bounds = sorted((figures.upper_bytes or 0, name) for name, figures in record.predicted.items())
    asked = bounds[:1] if survived else bounds
    assert short.limits == [cap - CONTEXT_BYTES for cap, _ in asked]
    for place_in_order, (cap, name) in enumerate(bounds):
        rerun = record.reruns[name]
        assert (rerun.cap_bytes, rerun.limit_bytes) == (cap, cap - CONTEXT_BYTES)
        assert (rerun.survived, rerun.implied) == (survived, survived and place_in_order == 1)
    assert (tmp_path / record.tape).exists()


def test_out_of_memory_is_a_result(place: Place, tmp_path: Path) -> None:
    short = ShortGpu(0)
    place(short, capacity_bytes=300_000)
    row = job(tmp_path)
    record = protocol.measured(row, protocol.predicted(row))
    assert (record.outcome, record.measured, record.reruns) == ("out-of-memory", None, {})
    assert short.limits == []
    assert row.shelf.is_final()
    assert (tmp_path / record.tape).exists(), "the history up to the refusal is kept"


def test_a_row_that_is_broken_off_is_no_measurement(place: Place, tmp_path: Path) -> None:
    place(ShortGpu(0), interrupt_at=200)
    row = job(tmp_path)
    before = protocol.predicted(row)
    with pytest.raises(KeyboardInterrupt):
        protocol.measured(row, before)
    assert row.shelf.stored() is None
    assert row.shelf.pending() == before
