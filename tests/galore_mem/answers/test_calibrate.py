"""Calibration with made-up GPUs, what plan and trace make of it, and files that are no calibration."""

import json
import sys
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from estimators.analytic.estimate import estimate
from galore_mem.answers.calibrate import SVD_SHAPES, calibrate
from galore_mem.answers.calibrated import VARIABLE
from galore_mem.answers.names import resolve_cards
from galore_mem.answers.plan import plan
from galore_mem.answers.settings import Settings, workloads
from galore_mem.errors import GaloreMemError, NoDeviceError, UsageError
from profiles.calibration import Calibration, SvdScratch, calibrations_bytes, read_calibrations
from profiles.errors import InputError
from profiles.gpus import GIB, MIB, find_gpu
from profiles.models import find_model


@dataclass
class FakeProbe:
    """A GPU whose context grows from 400 to 460 MiB as kernels are loaded, and whose figures add up."""

    device_name: str = "NVIDIA GeForce RTX 4090"
    driver: str = "580.1"
    torch: str = "2.11.0"
    context_mib: int = 400
    read_from: str = "process"
    autograd: int = 8_519_680
    reserved: int = 0
    calls: list[str] = field(default_factory=list)
    full_from: int = 4096

    def start(self) -> None:
        self.calls.append("start")

    def total_bytes(self) -> int:
        return 24_100 * MIB

    def process_bytes(self) -> tuple[int, str]:
        return self.context_mib * MIB + self.reserved, self.read_from

    def reserved_bytes(self) -> int:
        return self.reserved

    def workspace_bytes(self) -> tuple[int, int]:
        self.reserved = 20 * MIB
        return 8_519_680, self.autograd

    def train(self) -> None:
        self.context_mib += 20

    def run_everything(self) -> None:
        self.context_mib += 40

    def svd_scratch_bytes(self, rows: int, columns: int) -> int:
        if columns >= self.full_from:
            raise MemoryError
        return 10 * rows * columns


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "data" / "calibration.json"
    monkeypatch.setenv(VARIABLE, str(path))
    return path


def test_what_is_measured_is_written_and_read_back(file: Path) -> None:
    told: list[str] = []
    result = calibrate(probe=FakeProbe(), told=told.append)
    found = result.calibration
    assert (found.context_low_bytes, found.context_high_bytes) == (420 * MIB, 460 * MIB)
    assert found.total_bytes == 24_100 * MIB
    assert found.workspace_bytes == 8_519_680
    assert found.svd[0] == SvdScratch(shorter=512, longer=512, scratch_bytes=10 * 512 * 512)
    assert [(each.shorter, each.longer) for each in found.svd] == [pair for pair in SVD_SHAPES if pair[0] < 4096]
    assert result.notes == ("the GPU has no room to decompose 4096 x 4096",)
    assert told == ["context", "workspaces", "training kernels", "attention and decompositions"]
    assert read_calibrations(file) == (found,)
    assert [path.name for path in file.parent.iterdir()] == ["calibration.json"]


def test_each_card_driver_and_torch_keeps_its_own_newest(file: Path) -> None:
    calibrate(probe=FakeProbe(context_mib=100))
    calibrate(probe=FakeProbe())
    calibrate(probe=FakeProbe(torch="2.12.0"))
    calibrate(probe=FakeProbe(device_name="NVIDIA H200"))
    keys = {each.key: each.context_low_bytes for each in read_calibrations(file)}
    assert keys == {
        ("NVIDIA GeForce RTX 4090", "580.1", "2.11.0"): 420 * MIB,
        ("NVIDIA GeForce RTX 4090", "580.1", "2.12.0"): 420 * MIB,
        ("NVIDIA H200", "580.1", "2.11.0"): 420 * MIB,
    }


def test_what_was_not_certain_is_said(file: Path) -> None:
    result = calibrate(probe=FakeProbe(read_from="card", autograd=33_554_432))
    assert result.calibration.workspace_bytes == 33_554_432
    assert "the larger counts" in result.notes[0]
    assert "difference on the whole card" in result.notes[-1]


@pytest.mark.parametrize("context_mib", [-500, 0, 9000])
def test_a_context_that_makes_no_sense_is_refused_and_nothing_is_written(file: Path, context_mib: int) -> None:
    with pytest.raises(GaloreMemError, match=r"context of .* makes no sense.*run it again"):
        calibrate(probe=FakeProbe(context_mib=context_mib))
    assert not file.exists()


# What plan and trace make of it.


def a_calibration(**words: Any) -> Calibration:  # noqa: ANN401
    plain = Calibration(
        device_name="NVIDIA GeForce RTX 4090",
        driver="580.1",
        torch="2.11.0",
        measured_at="2026-11-22T06:00:00Z",
        total_bytes=24_100 * MIB,
        context_low_bytes=420 * MIB,
        context_high_bytes=460 * MIB,
        read_from="process",
        workspace_bytes=4_000_256,
        svd=(),
    )
    return replace(plain, **words)


def keep(file: Path, *calibrations: Calibration) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(calibrations_bytes(calibrations))


def test_plan_uses_the_newest_and_names_it(file: Path) -> None:
    before = plan("llama-60m", gpus="4090", methods="adamw")
    assert before.notes == ()
    keep(file, a_calibration(measured_at="2026-01-01T00:00:00Z", context_high_bytes=999 * MIB), a_calibration())
    after = plan("llama-60m", gpus="4090", methods="adamw")
    (note,) = after.notes
    assert note == (
        "RTX 4090: context 0.41-0.45 GiB as calibrated on this machine 2026-11-22 (torch 2.11.0, driver 580.1); "
        "total memory and workspaces likewise"
    )
    fit = after.plans[0].fits[0]
    (context,) = [term for term in fit.footprint.terms if term.name == "context"]
    assert (context.low_bytes, context.high_bytes) == (440 * MIB, 460 * MIB)
    assert "calibrated on this machine" in context.reason
    assert fit.usable_bytes == 24_100 * MIB
    workspaces = fit.footprint.peak.by_category["workspaces"]
    assert workspaces == 2 * 4_000_256
    assert workspaces != before.plans[0].fits[0].footprint.peak.by_category["workspaces"]


def test_other_cards_are_as_the_catalogue_has_them(file: Path) -> None:
    keep(file, a_calibration())
    (other,) = resolve_cards(["3090"])
    assert other.gpu == find_gpu("3090")
    assert other.note == ""
    keep(file, a_calibration(device_name="NVIDIA GeForce RTX 4060 Ti", total_bytes=16_000 * MIB))
    small, large = resolve_cards(["4060 ti 8gb", "4060 ti 16gb"])
    assert (bool(small.note), bool(large.note)) == (False, True)


def test_measured_decompositions_take_the_place_of_their_bound() -> None:
    gpu = find_gpu("4090")
    settings = Settings(implementation="galore-torch")
    (workload,) = workloads(find_model("llama-60m").shape, ("galore-adamw",), settings)
    bound = estimate(workload, gpu)
    shapes = {(512, 512): 1 << 20, (512, 1376): 2 << 20}
    measured = replace(gpu, svd_scratch=tuple((*shape, nbytes) for shape, nbytes in shapes.items()))
    found = estimate(workload, measured)
    (term,) = [term for term in found.terms if term.name.startswith("SVD")]
    assert term.name == "SVD scratch"
    assert 0 < term.high_bytes <= 2 << 20
    assert "as measured on this card" in term.reason
    assert bound.upper_bytes - found.upper_bytes == (
        sum(each.high_bytes for each in bound.terms if each.name.startswith("SVD")) - term.high_bytes
    )
    other = replace(gpu, svd_scratch=((4096, 4096, 1),))
    assert estimate(workload, other).upper_bytes == bound.upper_bytes


BROKEN = {
    "another version": ('{"schema": "galore-mem/calibration/9", "cards": []}', "another version of galore-mem"),
    "cut off": ('{"schema": "galore', "its JSON is broken"),
    "a shrinking context": (
        calibrations_bytes([a_calibration(context_high_bytes=1)]).decode(),
        "its context is larger than its card, or smaller",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_used_changes_nothing_and_is_named(file: Path, name: str) -> None:
    content, why = BROKEN[name]
    file.parent.mkdir()
    file.write_text(content)
    result = plan("llama-60m", gpus="4090", methods="adamw")
    (note,) = result.notes
    assert note.startswith("not calibrated: ")
    assert why in note
    assert str(file) in note
    assert result.cards[0].gpu == find_gpu("4090")
    with pytest.raises(InputError, match="calibration"):
        calibrate(probe=FakeProbe())
    assert file.read_text() == content


def test_an_empty_name_switches_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    assert resolve_cards(["4090"])[0].note == ""
    with pytest.raises(UsageError, match=f"unset {VARIABLE}"):
        calibrate(probe=FakeProbe())


def test_reading_it_imports_neither_torch_nor_platformdirs(file: Path) -> None:
    import subprocess

    keep(file, a_calibration())
    program = (
        "import sys\n"
        "from galore_mem.answers.plan import plan\n"
        "notes = plan('llama-60m', gpus='4090', methods='adamw').notes\n"
        "print(len(notes), sorted({'torch', 'platformdirs', 'pynvml'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == ("1 []\n" if sys.platform == "linux" else "1 ['platformdirs']\n")


def test_on_linux_the_folder_is_platformdirs_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("elsewhere platformdirs itself is asked")
    platformdirs = pytest.importorskip("platformdirs")
    from galore_mem.answers.homes import user_folder

    for setting in ("", "  ", str(tmp_path)):
        monkeypatch.setenv("XDG_DATA_HOME", setting)
        assert user_folder() == platformdirs.user_data_dir("galore-mem", appauthor=False)
    monkeypatch.delenv("XDG_DATA_HOME")
    assert user_folder() == platformdirs.user_data_dir("galore-mem", appauthor=False)


# The probe itself, with CPU tensors and a made-up driver.


def a_driver(processes: dict[int, int | None], used_mib: int) -> ModuleType:
    class NVMLError(Exception):
        pass

    module = ModuleType("pynvml")
    entries = [SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in processes.items()]
    vars(module).update(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetHandleByUUID=lambda uuid: 0,
        nvmlDeviceGetUUID=lambda handle: "GPU-1",
        nvmlSystemGetDriverVersion=lambda: b"580.1",
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=used_mib * MIB),
        nvmlDeviceGetComputeRunningProcesses=lambda handle: entries,
    )
    return module


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401
    """A probe whose arithmetic runs on CPU tensors."""
    if find_spec("torch") is None:
        pytest.skip("torch is not installed")
    import torch

    from galore_mem.answers import local_gpu
    from galore_mem.answers.cuda_probe import CudaProbe

    card = local_gpu.LocalGpu(
        index=0, uuid="GPU-1", device_name="NVIDIA X", gpu=find_gpu("4090"), total_bytes=24 * GIB, other_use_bytes=0
    )
    monkeypatch.setattr(local_gpu, "local_gpus", lambda: (card,))
    monkeypatch.setattr(CudaProbe, "device", "cpu")
    monkeypatch.setitem(sys.modules, "pynvml", a_driver({1: 100 * MIB}, 1000))
    quiet: dict[str, Any] = {
        "synchronize": lambda: None,
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": lambda: None,
    }
    for name, function in quiet.items():
        monkeypatch.setattr(torch.cuda, name, function)
    with monkeypatch.context() as there_is_one:
        there_is_one.setattr(torch.cuda, "is_available", lambda: True)
        return CudaProbe()


def test_the_probe_s_own_steps_run(probe: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    import torch

    assert (probe.device_name, probe.driver) == ("NVIDIA X", "580.1")
    probe.start()
    probe.train()
    monkeypatch.setattr("galore_mem.answers.cuda_probe._optimizer_of_eight_bits", lambda: None)
    probe.run_everything()
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 5 * 32 * 32 * 4)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 0)
    assert probe.svd_scratch_bytes(32, 32) == 5 * 32 * 32 * 4 - 2 * 32 * 32 * 4 - 512


def test_workspaces_are_what_stays_after_a_product(probe: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    import torch

    matrix, scalar, workspace = 256 * 256 * 2, 512, 8_519_680
    at = iter(
        [1024, 1024 + matrix, 1024 + 2 * matrix + workspace, 1024 + 3 * matrix + scalar + 2 * workspace],
    )
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: next(at))
    assert probe.workspace_bytes() == (workspace, workspace)


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        ({1: 100 * MIB, "own": 500 * MIB}, (500 * MIB, "process")),
        ({1: 100 * MIB, 77: 480 * MIB}, (480 * MIB, "process")),
        ({1: 100 * MIB, 77: 480 * MIB, 78: 1 * MIB}, (450 * MIB, "card")),
        ({1: 100 * MIB, "own": None}, (450 * MIB, "card")),
        ({}, (450 * MIB, "card")),
    ],
)
def test_who_holds_what_is_the_driver_s_word_or_a_difference(
    probe: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
    processes: dict[Any, int | None],
    expected: tuple[int, str],
) -> None:
    import os

    told = {os.getpid() if pid == "own" else pid: held for pid, held in processes.items()}
    monkeypatch.setattr(probe._process, "_nvml", a_driver(told, 1450))
    assert probe.process_bytes() == expected


def test_a_torch_without_cuda_is_one_line(probe: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NoDeviceError, match=r"torch cannot use this machine.s GPU. torch .* was built"):
        type(probe)()


def test_the_command_prints_and_has_json(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from galore_mem.commands.app import call

    fake = ModuleType("galore_mem.answers.cuda_probe")
    fake.CudaProbe = FakeProbe  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "galore_mem.answers.cuda_probe", fake)
    assert call(["calibrate"]) == 0
    shown = capsys.readouterr().out
    assert "context, every kernel          460.0 MiB" in shown
    assert "SVD of 512 x 1376" in shown
    assert call(["calibrate", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["calibration"]["context_high_bytes"] == 460 * MIB
    assert content["path"] == str(file)
