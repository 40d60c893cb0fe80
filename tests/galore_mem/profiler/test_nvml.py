"""What a process holds, and why there is no GPU, by a made-up driver."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from galore_mem.errors import NoDeviceError
from galore_mem.profiler.nvml import ProcessMemory, Sampler, why_no_gpu


class NVMLError(Exception):
    pass


class LibraryNotFoundError(NVMLError):
    pass


class DriverNotLoadedError(NVMLError):
    pass


@dataclass(kw_only=True)
class Driver:
    """One GPU, or none."""

    cards: int = 1
    used: int = 500
    processes: dict[int, int | None] = field(default_factory=dict)
    failing: dict[str, type[NVMLError]] = field(default_factory=dict)

    def module(self) -> ModuleType:
        module = ModuleType("pynvml")
        functions: dict[str, Callable[..., Any]] = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: self.cards,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetHandleByUUID": self._by_uuid,
            "nvmlDeviceGetUUID": lambda handle: b"GPU-a",
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=self.used),
            "nvmlDeviceGetComputeRunningProcesses": self._running,
            "nvmlSystemGetDriverVersion": lambda: "580.1",
        }
        vars(module).update(
            {name: self._failing(name, function) for name, function in functions.items()},
            NVMLError=NVMLError,
            NVMLError_LibraryNotFound=LibraryNotFoundError,
            NVMLError_DriverNotLoaded=DriverNotLoadedError,
        )
        return module

    def _running(self, handle: int) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.processes.items()]

    def _by_uuid(self, uuid: str) -> int:
        if uuid != "GPU-a":
            raise NVMLError("no such card")
        return 0

    def _failing(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:  # noqa: ANN401
            if name in self.failing:
                raise self.failing[name]("it broke")
            return function(*arguments)

        return call


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    found = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", found.module())
    return found


def test_the_driver_names_this_process(driver: Driver) -> None:
    memory = ProcessMemory()
    memory.choose("a")
    driver.processes = {os.getpid(): 700, 12: 5000}
    assert (memory.read(), memory.source) == (700, "process")
    assert memory.driver() == "580.1"


def test_in_a_container_the_one_new_process_is_this_one(driver: Driver) -> None:
    driver.processes = {12: 5000}
    memory = ProcessMemory()
    memory.choose("GPU-a")
    driver.processes = {12: 5000, 999_999: 800}
    assert (memory.read(), memory.source) == (800, "process")


@pytest.mark.parametrize("processes", [{}, {999_998: 1, 999_999: 2}, {999_999: None}])
def test_otherwise_what_the_whole_card_gained_is_taken(driver: Driver, processes: dict[int, int | None]) -> None:
    memory = ProcessMemory()
    memory.choose("a")
    driver.processes, driver.used = processes, 1400
    assert (memory.read(), memory.source) == (900, "device")


def test_a_silent_driver_leaves_the_figure_unknown(driver: Driver) -> None:
    memory = ProcessMemory()
    assert memory.read() is None
    memory.choose("another card")
    assert (memory.read(), memory.source) == (None, "unknown")
    driver.failing = {"nvmlInit": LibraryNotFoundError}
    assert ProcessMemory().read() is None


@pytest.mark.parametrize(
    ("failing", "cards", "said"),
    [
        ({"nvmlInit": LibraryNotFoundError}, 1, "has no NVIDIA driver"),
        ({"nvmlInit": DriverNotLoadedError}, 1, "not loaded"),
        ({"nvmlInit": NVMLError}, 1, "does not answer"),
        ({}, 0, "sees no GPU"),
    ],
)
def test_each_reason_for_no_gpu_is_one_line_with_a_way_out(
    driver: Driver, failing: dict[str, type[NVMLError]], cards: int, said: str
) -> None:
    driver.failing, driver.cards = failing, cards
    reason = why_no_gpu()
    assert isinstance(reason, NoDeviceError)
    assert said in str(reason)
    assert "--device cpu" in str(reason)
    assert reason.exit_code == 3


def test_a_gpu_that_torch_cannot_use(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from galore_mem.profiler.cuda import require_gpu

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert why_no_gpu() is None
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(NoDeviceError, match="build for CPUs"):
        require_gpu()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(NoDeviceError, match="leaves no GPU"):
        require_gpu()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")

    def refuse() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old\nand more")

    monkeypatch.setattr(torch.cuda, "init", refuse)
    with pytest.raises(NoDeviceError, match="too old") as refusal:
        require_gpu()
    assert "\n" not in str(refusal.value)


def test_a_sampler_keeps_changes_and_the_peak() -> None:
    values = iter([1, 1, 5, 3])
    last = [3]

    def read() -> int:
        last[0] = next(values, last[0])
        return last[0]

    with Sampler(read, seconds=0.001) as sampler:
        end = time.monotonic() + 5
        while sampler.current != 3 and time.monotonic() < end:
            time.sleep(0.001)
    assert (sampler.peak, sampler.current) == (5, 3)
    assert [value for _, value in sampler.samples] == [1, 5, 3]
    assert Sampler(lambda: None).peak is None
