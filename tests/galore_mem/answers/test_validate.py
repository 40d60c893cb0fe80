"""The matrix, the crew of worker processes, and a run that is killed and taken up again."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from estimators.analytic.estimate import estimate
from estimators.workload import METHODS
from galore_mem.answers import validate as question
from galore_mem.answers.local_gpu import NAME_A_CARD, LocalGpu
from galore_mem.answers.validate import bench_of, stored, validate
from galore_mem.answers.validation.costs import cost_of, total_seconds
from galore_mem.answers.validation.crew import ALLOC_CONF, Crew, environment_of
from galore_mem.answers.validation.matrix import MATRIX, Row, chosen
from galore_mem.answers.validation.protocol import Bench, Job
from galore_mem.answers.validation.shelf import Shelf
from galore_mem.errors import NoDeviceError, UsageError
from profiles.errors import InputError
from profiles.gpus import GIB, find_gpu
from profiles.records import Record
from profiles.shapes import ModelShape

needs_torch = pytest.mark.skipif(
    find_spec("torch") is None or find_spec("transformers") is None, reason="torch and transformers are not installed"
)
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


def row(name: str, method: str = "adamw", **words: Any) -> Row:  # noqa: ANN401
    return Row(name=name, model="", method=method, shape=SHAPE, on_cpu=True, words={"seq": 32, **words})


TINY = row("tiny", attention="math")
GALORE = row("tiny-galore", "galore-adamw", rank=8, update="per-layer", attention="math")


def bench(folder: Path) -> Bench:
    return Bench(device="cpu", name="cpu", card=None, environment={"torch": "2.13.0"}, folder=str(folder))


def jobs(folder: Path, *names: str) -> list[Job]:
    return [Job(row=name, workload=TINY.workload, bench=bench(folder)) for name in names]


# The matrix.


def test_every_row_of_the_matrix_can_run_on_a_card_of_140_gb() -> None:
    gpu = find_gpu("h200")
    names = [row.name for row in MATRIX]
    assert len(set(names)) == len(names)
    for each in MATRIX:
        needed = estimate(each.workload, gpu).upper_bytes
        assert (needed <= gpu.usable_bytes) is not each.too_large, each.name
        assert Shelf(folder="", stem=f"nvidia-h200.torch-2-11-0.{each.name}").path.isascii()


def test_the_matrix_takes_at_most_eight_minutes_by_its_stated_costs() -> None:
    assert total_seconds([row.workload for row in MATRIX], 6) <= 8 * 60
    assert total_seconds([], 6) == 0.0


def test_what_one_expects_costs_more() -> None:
    (plain, svd) = (row("a", "galore-adamw", rank=8), row("b", "galore-adamw", rank=8, implementation="galore-torch"))
    assert cost_of(svd.workload).turn_seconds > cost_of(plain.workload).turn_seconds
    assert cost_of(row("c", batch=64).workload).turn_seconds > cost_of(row("d").workload).turn_seconds


def test_the_matrix_covers_what_it_should() -> None:
    workloads = [row.workload for row in MATRIX]
    left_out = {"offload-adamw", "paged-adamw-32bit"}  # torchao is no dependency; 8-bit states are paged alike
    assert {workload.method.name for workload in workloads} == set(METHODS) - left_out
    per_layer = {workload.method.name for workload in workloads if workload.method.update == "per-layer"}
    assert per_layer >= {"adamw", "adamw-8bit", "adafactor", "galore-adamw", "galore-adamw-8bit", "galore-adafactor"}
    assert {workload.precision for workload in workloads} >= {"bf16", "fp32", "amp-bf16"}
    assert {workload.attention for workload in workloads} == {"auto", "flash", "efficient", "cudnn", "math", "eager"}
    assert {workload.batch.sequence_length for workload in workloads} >= {256, 512, 1024, 2048, 4096}
    assert {workload.method.implementation for workload in workloads} == {"galore-mem", "galore-torch"}
    assert sum(bool(workload.allocator_settings) for workload in workloads) >= 3
    assert any(workload.model.tie_word_embeddings for workload in workloads)
    assert any(workload.model.num_key_value_heads < workload.model.num_attention_heads for workload in workloads)
    cpu = [row.workload for row in chosen(on_cpu=True)]
    assert {(workload.method.name, workload.method.update) for workload in cpu} >= {
        (name, update)
        for name in ("galore-adamw", "galore-adamw-8bit", "galore-adafactor")
        for update in ("whole", "per-layer")
    }


def test_rows_are_chosen_by_part_and_by_wildcard() -> None:
    assert [row.name for row in chosen("llama-13b")] == ["llama-13b_adamw_fp32"]
    assert {row.method for row in chosen("*_lora_*")} == {"lora"}
    with pytest.raises(InputError, match="no row matches 'nothing'"):
        validate(device="cpu", only="nothing")


# The crew, with workers that say what they are told to.

STUB = """
import json, os, pickle, base64, sys, time
sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)
job = pickle.loads(base64.b64decode(sys.stdin.readline()))
def say(**words):
    print(json.dumps(words), flush=True)
if job.row == "dies early":
    os.kill(os.getpid(), 9)
if job.row == "refuses":
    say(state="failed", line="it cannot", is_fatal=False)
    sys.exit(1)
say(state="predicted")
if sys.stdin.readline() != "go\\n":
    sys.exit(0)
if job.row == "dies":
    print("out of host memory", file=sys.stderr)
    os.kill(os.getpid(), 9)
if job.row == "hangs":
    time.sleep(600)
if job.row == "full":
    say(state="failed", line="cannot write x.json: No space left on device", is_fatal=True)
    sys.exit(1)
if job.row == "settings":
    say(state="failed", line=os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "none"), is_fatal=False)
    sys.exit(1)
say(state="done", outcome="out-of-memory" if job.row == "too large" else "measured")
"""


def crew(todo: list[Job], *, workers: int = 2, seconds: float = 60) -> Crew:
    command = (sys.executable, "-c", STUB)
    until = time.monotonic() + seconds
    return Crew(todo, workers=workers, until=until, started=lambda job: None, command=command)


def test_a_worker_that_dies_takes_nothing_with_it(tmp_path: Path) -> None:
    names = ("a", "dies early", "dies", "refuses", "too large", "b")
    found = {done.job.row: (done.state, done.line) for done in crew(jobs(tmp_path, *names)).run()}
    assert found == {
        "a": ("measured", ""),
        "b": ("measured", ""),
        "too large": ("out-of-memory", ""),
        "refuses": ("failed", "it cannot"),
        "dies": ("failed", "its process was killed by signal 9: out of host memory"),
        "dies early": ("failed", "its process was killed by signal 9"),
    }
    logs = {path.name: path.read_text() for path in tmp_path.glob("*.log")}
    assert {name.rpartition(".torch-2-13-0.")[2] for name in logs} == {"dies.log", "dies-early.log", "refuses.log"}
    assert "out of host memory" in logs["cpu.torch-2-13-0.dies.log"]


def test_no_turn_begins_that_cannot_end_in_time(tmp_path: Path) -> None:
    states = [done.state for done in crew(jobs(tmp_path, "a", "b", "c"), seconds=1).run()]
    assert states == ["out-of-time"] * 3


def test_a_worker_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("galore_mem.answers.validation.crew.PATIENCE_SECONDS", {"cpu": -13.0})
    (done,) = crew(jobs(tmp_path, "hangs")).run()
    assert done.state == "failed"
    assert "far longer than it should" in done.line


def test_ctrl_c_ends_every_worker(tmp_path: Path) -> None:
    def interrupt(job: Job) -> None:
        raise KeyboardInterrupt

    running = Crew(
        jobs(tmp_path, "hangs", "b"),
        workers=2,
        until=time.monotonic() + 60,
        started=interrupt,
        command=(sys.executable, "-c", STUB),
    )
    workers = running._live
    with pytest.raises(KeyboardInterrupt):
        list(running.run())
    assert len(workers) == 2
    assert all(worker._process.returncode is not None for worker in workers)


def test_each_worker_has_its_row_s_allocator_settings_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ALLOC_CONF, "backend:cudaMallocAsync")
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "backend:cudaMallocAsync")
    (plain,) = jobs(tmp_path, "settings")
    own = replace(plain, workload=replace(plain.workload, allocator_settings="max_split_size_mb:128"))
    assert [done.line for done in crew([plain, own], workers=1).run()] == ["none", "max_split_size_mb:128"]
    assert "PYTORCH_ALLOC_CONF" not in environment_of(plain)


def test_a_full_disk_ends_the_run_in_one_line(tmp_path: Path) -> None:
    todo = jobs(tmp_path, "a", "full", "b")
    with pytest.raises(UsageError) as caught:
        question._run(crew(todo, workers=1), lambda line: None)
    line = str(caught.value)
    assert "No space left on device" in line
    assert "1 rows were finished and are kept" in line
    assert "\n" not in line


# The shelf.


def a_record(**words: Any) -> Record:  # noqa: ANN401
    plain: dict[str, Any] = {"environment": {}, "workload": {}, "model": {}, "predicted": {}}
    names: dict[str, Any] = {"row": "a", "device": "cpu", "source": "replayed", "outcome": "measured"}
    return Record(**{**plain, **names, "attention_kernel": "math", "usable_bytes": None, "predicted_at": "", **words})


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(folder=str(tmp_path), stem="a")
    shelf.keep(a_record(notes=("old",)))

    def full(descriptor: int, mode: str) -> Any:  # noqa: ANN401
        os.close(descriptor)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("galore_mem.tapes.atomic.os.fdopen", full)
    with pytest.raises(UsageError, match=r"cannot write .*No space left on device"):
        shelf.keep(a_record(notes=("new",)))
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    kept = shelf.stored()
    assert kept is not None
    assert kept.notes == ("old",)


def test_a_failure_never_takes_the_place_of_a_measurement(tmp_path: Path) -> None:
    shelf = Shelf(folder=str(tmp_path), stem="a")
    shelf.keep(a_record(outcome="failed", notes=("first",)))
    shelf.keep_log("why")
    assert not shelf.is_final()
    shelf.keep(a_record(notes=("measured",)))
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    shelf.keep(a_record(outcome="failed"))
    kept = shelf.stored()
    assert kept is not None
    assert kept.notes == ("measured",)
    assert shelf.is_final()


@needs_torch
def test_a_record_of_another_version_is_left_alone_and_its_row_skipped(tmp_path: Path) -> None:
    stem = bench_of("cpu", str(tmp_path)).stem("tiny")
    file = tmp_path / f"{stem}.json"
    file.write_text('{"schema": "galore-mem/record/99"}')
    found = validate(device="cpu", into=str(tmp_path), rows=[TINY])
    assert file.read_text() == '{"schema": "galore-mem/record/99"}'
    (skipped,) = found.skipped
    assert "was written by another version of galore-mem" in skipped.why
    assert "\n" not in skipped.why
    assert found.done == ()


@needs_torch
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot make the folder .*Not a directory"):
        bench_of("cpu", str(tmp_path / "file" / "records"))


# A GPU that is missing, or small.


def on_card(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    gpu = find_gpu(name)
    card = LocalGpu(
        index=0, uuid="GPU-1", device_name=gpu.device_names[0], gpu=gpu, total_bytes=gpu.usable_bytes, other_use_bytes=0
    )
    monkeypatch.setattr("galore_mem.answers.local_gpu.local_gpus", lambda: (card,))


@needs_torch
def test_rows_that_a_small_gpu_cannot_hold_are_skipped_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_card(monkeypatch, "4060 ti 8gb")
    card = bench_of("cuda", str(tmp_path))
    todo, skipped, kept = question._jobs(MATRIX, card, again=False)
    why = {row.row: row.why for row in skipped}
    assert "and the GPU has 7.6" in why["llama-7b_galore-adamw-8bit_per-layer"]
    assert 0 < len(todo) < len(MATRIX)
    assert len(todo) + len(skipped) == len(MATRIX)
    assert kept == 0
    assert any(job.row == "llama-13b_adamw_fp32" for job in todo)
    assert all(
        estimate(job.workload, card.gpu).process_bytes <= 8 * GIB for job in todo if job.row != "llama-13b_adamw_fp32"
    )


@needs_torch
def test_rows_whose_kernel_a_gpu_lacks_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_card(monkeypatch, "t4")
    _, skipped, _ = question._jobs(MATRIX, bench_of("cuda", str(tmp_path)), again=False)
    why = {row.row: row.why for row in skipped}
    assert "flash" in why["llama-350m_8-layers_adamw_flash_seq-2048"]


def test_without_a_driver_it_is_one_line_and_exit_3(monkeypatch: pytest.MonkeyPatch) -> None:
    from galore_mem.outcomes import outcome_of

    def none() -> tuple[LocalGpu, ...]:
        raise NoDeviceError("this machine has no NVIDIA driver", "", NAME_A_CARD)

    monkeypatch.setattr("galore_mem.answers.local_gpu.local_gpus", none)
    with pytest.raises(NoDeviceError) as caught:
        validate()
    assert outcome_of(caught.value) == (
        "this machine has no NVIDIA driver; hold the smallest rows against CPU tensors: --device cpu",
        3,
    )


# From end to end, on CPU tensors.

PROGRAM = """
import sys
from galore_mem.answers.validate import validate
sys.path.insert(0, {tests!r})
from test_validate import GALORE
print("start", flush=True)
validate(device="cpu", into={folder!r}, rows=[GALORE], told=lambda line: print(line, flush=True))
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose run was killed, with all its processes, when it began to measure."""
    folder = tmp_path_factory.mktemp("records")
    program = PROGRAM.format(tests=str(Path(__file__).parent), folder=str(folder))
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None
    heard = []
    for line in process.stdout:
        heard.append(line)
        if "measuring" in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert "measuring" in heard[-1], heard
    return folder


@needs_torch
def test_a_killed_run_is_taken_up_where_it_was(killed: Path) -> None:
    (pending,) = killed.iterdir()
    assert pending.name.endswith(".pending")
    before = json.loads(pending.read_text())
    told: list[str] = []
    found = validate(device="cpu", into=str(killed), rows=[GALORE], told=told.append)
    assert [done.state for done in found.done] == ["measured"], told
    (record,) = found.stored.records
    assert record.predicted_at == before["predicted_at"]
    assert record.to_dict()["predicted"] == before["predicted"]
    assert record.source == "replayed"
    assert record.measured is not None
    assert record.measured.process_bytes is None
    assert record.measured.peak_live_bytes == pytest.approx(record.predicted["traced"].peak_live_bytes, rel=0.01)
    assert dict(record.measured.resident_bytes) == dict(record.predicted["traced"].resident_bytes)
    assert record.reruns["traced"].survived
    assert record.reruns["analytic"].survived
    assert not list(killed.glob("*.pending"))
    assert (killed / record.tape).exists()
    once_more = validate(device="cpu", into=str(killed), rows=[GALORE], told=told.append)
    assert (once_more.done, once_more.kept) == ((), 1)


@needs_torch
def test_what_is_stored_is_drawn_and_labelled(killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from galore_mem.commands.app import call

    if not stored(str(killed)).records:
        pytest.skip("nothing was recorded")
    assert call(["validate", "--show", str(killed)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "No run on a GPU is recorded yet" in shown
    assert "no GPU was involved" in shown
    assert "tiny-galore" in shown
    assert call(["validate", "--show", str(killed), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["schema"] == "galore-mem/validation/1"
    assert content["accuracy"]["measured"] == []
    assert content["records"][0]["source"] == "replayed"


@pytest.mark.parametrize("words", [["validate", "somewhere"], ["validate", "--device", "tpu"]])
def test_lines_that_mean_nothing_are_refused(words: list[str]) -> None:
    from galore_mem.commands.app import call

    with pytest.raises(Exception, match=r"--show somewhere|tpu"):
        call(words)


def test_the_matrix_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    from galore_mem.commands.app import call

    call(["validate", "--rows"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(MATRIX) + 1
