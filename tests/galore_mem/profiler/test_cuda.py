"""The GPU's own calls, on a made-up `torch.cuda`."""

from types import SimpleNamespace
from typing import Any

import pytest

from galore_mem.errors import UsageError

pytest.importorskip("torch")

from galore_mem.profiler.cuda import Gpu

GIB = 1 << 30


class Machine:
    """What torch answers."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.tags: list[str] = []
        self.counts = {"allocated": 10, "freed": 4}
        self.backend = "native"
        self.knows_clear_history = True

    def record(self, enabled: str | None, **words: Any) -> None:  # noqa: ANN401
        if "clear_history" in words and not self.knows_clear_history:
            raise TypeError("unexpected keyword argument 'clear_history'")
        self.calls.append((enabled, words))

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        properties = SimpleNamespace(total_memory=24 * GIB, name="NVIDIA X", uuid="a")
        answers: dict[str, Any] = {
            "torch.cuda.is_available": lambda: True,
            "torch.cuda.current_device": lambda: 0,
            "torch.cuda.get_device_properties": lambda index: properties,
            "torch.cuda.get_device_capability": lambda index: (9, 0),
            "torch.cuda.get_per_process_memory_fraction": lambda index: 0.5,
            "torch.cuda.synchronize": lambda index: None,
            "torch.cuda.memory.get_allocator_backend": lambda: self.backend,
            "torch.cuda.memory._record_memory_history": self.record,
            "torch.cuda.memory._snapshot": lambda: {"device_traces": []},
            "torch.cuda.memory.memory_stats_as_nested_dict": lambda index: {"allocation": {"all": self.counts}},
            "torch.cuda.empty_cache": lambda: self.calls.append(("empty_cache",)),
            "torch.backends.cudnn.version": lambda: 91002,
            "torch._C._cuda_setMemoryMetadata": self.tags.append,
            "torch._C._cuda_clearCublasWorkspaces": lambda: self.calls.append(("clear_workspaces",)),
        }
        for name, answer in answers.items():
            monkeypatch.setattr(name, answer, raising=False)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    found.install(monkeypatch)
    return found


def test_positions_count_from_where_the_history_begins(machine: Machine) -> None:
    gpu = Gpu()
    with gpu.recording():
        assert gpu.position() == 0
        machine.counts = {"allocated": 15, "freed": 6}
        assert gpu.position() == 7
        assert gpu.snapshot() == {"device_traces": []}
    (enabled, words), (disabled, _) = machine.calls
    assert (enabled, disabled) == ("all", None)
    assert words["clear_history"] is True
    assert words["stacks"] == "python"


def test_an_older_torch_is_asked_in_its_own_words(machine: Machine) -> None:
    machine.knows_clear_history = False
    with Gpu().recording():
        pass
    assert "clear_history" not in machine.calls[0][1]


def test_tags_stand_beside_allocations_only_while_a_history_is_kept(machine: Machine) -> None:
    gpu = Gpu()
    with gpu.recording():
        gpu.tag("steady backward")
    assert machine.tags == ["steady backward", ""]


def test_tags_are_left_out_where_torch_has_none(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("torch._C._cuda_setMemoryMetadata")
    with Gpu().recording():
        pass
    assert machine.calls[-1][0] is None


def test_what_cublas_keeps_goes_before_the_cache(machine: Machine) -> None:
    Gpu().empty()
    assert machine.calls == [("clear_workspaces",), ("empty_cache",)]


def test_recording_ends_when_the_run_fails(machine: Machine) -> None:
    def run() -> None:
        with Gpu().recording():
            raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        run()
    assert machine.calls[-1][0] is None


def test_an_allocator_without_history_is_refused(machine: Machine) -> None:
    machine.backend = "cudaMallocAsync"
    with pytest.raises(UsageError, match="keeps no history"), Gpu().recording():
        pass


def test_the_card_and_its_settings_are_named(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:2:16:8")
    gpu = Gpu()
    assert gpu.workspaces >= {8_519_680, 33_554_432}
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    assert 128 * 1024 in gpu.workspaces
    assert gpu.allowed_bytes == 12 * GIB
    found = gpu.environment()
    assert (found["gpu"], found["compute_capability"], found["gpu_total_bytes"]) == ("NVIDIA X", "9.0", 24 * GIB)
    assert found["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    assert found["cudnn"] == 91002
    gpu.close()
