"""Machines without a GPU that can be used: one clear line, exit code 3, and nothing written."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from galore_mem.answers.calibrated import VARIABLE
from galore_mem.commands.app import call
from galore_mem.outcomes import outcome_of

pytestmark = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")


class NVMLError(Exception):
    pass


NAMES = ("LibraryNotFound", "DriverNotLoaded", "NotSupported", "FunctionNotFound", "InvalidArgument")
ERRORS = {f"NVMLError_{name}": type(f"NVMLError_{name}", (NVMLError,), {}) for name in NAMES}


def failing(name: str) -> Callable[..., Any]:
    def call(*arguments: object) -> None:
        raise ERRORS[f"NVMLError_{name}"]

    return call


def driver(**functions: Any) -> ModuleType:  # noqa: ANN401
    module = ModuleType("pynvml")
    plain: dict[str, Any] = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetHandleByUUID": lambda uuid: 0,
        "nvmlDeviceGetName": lambda handle: "NVIDIA A100-SXM4-80GB",
        "nvmlDeviceGetUUID": lambda handle: "GPU-1",
        "nvmlDeviceGetMigMode": lambda handle: (0, 0),
        "nvmlDeviceGetMemoryInfo": lambda handle, version=2: SimpleNamespace(total=80 << 30, reserved=1 << 29, used=0),
        "nvmlDeviceGetCudaComputeCapability": lambda handle: (8, 0),
        "nvmlDeviceGetComputeRunningProcesses": lambda handle: [],
        "nvmlSystemGetDriverVersion": lambda: "580.1",
        "nvmlMemory_v2": 2,
    }
    vars(module).update(plain | ERRORS | functions)
    return module


MACHINES = {
    "no driver": (driver(nvmlInit=failing("LibraryNotFound")), "this machine has no NVIDIA driver"),
    "a driver that is not loaded": (driver(nvmlInit=failing("DriverNotLoaded")), "installed but not loaded"),
    "a driver without a GPU": (driver(nvmlDeviceGetCount=lambda: 0), "the NVIDIA driver sees no GPU"),
    "a card split by MIG": (driver(nvmlDeviceGetMigMode=lambda handle: (1, 1)), "is split by MIG"),
}


@pytest.mark.parametrize("command", [["calibrate"], ["validate", "--only", "llama-60m_adamw_math"]])
@pytest.mark.parametrize("name", MACHINES)
def test_one_line_and_exit_3(
    name: str, command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module, why = MACHINES[name]
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "calibration.json"))
    words = [*command, "--into", str(tmp_path / "records")] if command[0] == "validate" else command
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what it is, is asked below
        call(words)
    line, code = outcome_of(caught.value)
    assert code == 3
    assert why in line
    assert "\n" not in line
    assert not (tmp_path / "records").exists()
    assert not (tmp_path / "calibration.json").exists()
    assert capsys.readouterr().out == ""


def test_a_slice_that_is_named_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1234")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "calibration.json"))
    for words in (["calibrate"], ["validate", "--into", str(tmp_path / "records")]):
        with pytest.raises(Exception, match="names a MIG slice"):
            call(words)
    assert list(tmp_path.iterdir()) == []


def test_a_torch_without_cuda_beside_a_gpu_ends_the_run_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    if torch.version.cuda is not None:
        pytest.skip("this torch was built for CUDA")
    monkeypatch.setitem(sys.modules, "pynvml", driver())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "calibration.json"))
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call(["calibrate"])
    line, code = outcome_of(caught.value)
    assert code == 3
    assert "was built without CUDA" in line
