"""The script for a bare GPU machine, as far as no GPU is needed."""

import argparse
import importlib.util
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("galore_mem_on_gpu", ROOT / "benchmarks" / "on_gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    out = tmp_path / "out"
    out.mkdir()
    made = script.Run(argparse.Namespace(minutes=2, device="cpu", only=None, out=out, wheels=None))
    yield made
    made.close()


def names_in(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        return archive.getnames()


def test_wheels_are_unpacked_and_stay_where_they_belong(script: ModuleType, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "some_package-1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("some_package/__init__.py", "x = 1\n")
        wheel.writestr("some_package-1.2.data/purelib/other.py", "y = 2\n")
        wheel.writestr("some_package-1.2.data/scripts/run", "nothing\n")
        wheel.writestr("../outside.py", "z = 3\n")
        wheel.writestr("/absolute.py", "z = 3\n")
    site = tmp_path / "deep" / "site"
    assert script.unpacked_wheels(tmp_path, site) == ["some_package-1.2"]
    assert sorted(path.relative_to(site).as_posix() for path in site.rglob("*.py")) == [
        "other.py",
        "some_package/__init__.py",
    ]
    assert not list(tmp_path.rglob("outside.py"))
    assert not list(site.rglob("run"))


def test_archives_are_as_small_as_asked_and_few(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "LARGEST_ARCHIVE_BYTES", 5000)
    records, out = tmp_path / "records", tmp_path / "out"
    records.mkdir()
    out.mkdir()
    for number in range(9):
        (records / f"{number}.json").write_text("{}")
        (records / f"{number}.tape.json.gz").write_bytes(bytes([number]) * 1000)
    (records / "0.pending").write_text("{}")
    written = script.packed(records, out)
    assert [path.name for path in written] == ["records.tar.gz", "tapes-1.tar.gz", "tapes-2.tar.gz"]
    assert sorted(path.name for path in out.iterdir()) == [path.name for path in written]
    members = [names_in(path) for path in written]
    assert members[0] == [f"{number}.json" for number in range(9)]
    assert [len(names) for names in members[1:]] == [2, 2]


def test_a_program_that_does_not_end_is_ended_and_what_there_is_is_packed(run: Any) -> None:  # noqa: ANN401
    (run.records / "a.json").write_text("{}")
    program = "import signal, time; signal.signal(signal.SIGINT, lambda *_: exit(3)); print('hello'); time.sleep(60)"
    assert run.call("sleep", [sys.executable, "-c", program], 1.0) == 124
    assert names_in(run.out / "records.tar.gz") == ["a.json"]
    assert run.call("quick", [sys.executable, "-c", "print('done'); exit(5)"], 30) == 5
    assert (run.out / "quick.txt").read_text() == "done\n"
    run.say("a line")
    run.close()
    assert "a line" in (run.out / "summary.txt").read_text()
    assert not run.work.exists()


def test_it_runs_the_files_that_have_the_mark_and_no_plugins(script: ModuleType) -> None:
    alone, together = script.test_words(side_by_side=False), script.test_words(side_by_side=True)
    assert str(ROOT / "tests/galore_mem/tapes/test_on_gpu.py") in together
    assert str(ROOT / "tests/galore_mem/answers/test_on_gpu.py") in alone
    files = [word for word in (*alone, *together) if word.endswith(".py")]
    assert len(set(files)) == len(files)
    assert all(Path(file).exists() for file in files)
    assert not any("--dist" in word for word in (*alone, *together))
    assert "-n" not in alone


def test_it_is_called_without_any_path_of_a_machine(script: ModuleType, run: Any) -> None:  # noqa: ANN401
    words = script.validate_words(run, 8)
    assert words[1:5] == ["-P", "-m", "galore_mem", "validate"]
    assert words[words.index("--limit-minutes") + 1] == "8.00"
    assert run.environment["PYTHONPATH"].startswith(str(ROOT))
    from galore_mem.commands.app import COMMANDS
    from galore_mem.commands.quick import bind

    bound = bind(words[4:], COMMANDS)  # without cyclopts, which a bare machine lacks
    assert bound is not None
    assert bound[2] == {"device": "cpu", "into": str(run.records), "limit_minutes": 8.0}


def test_what_is_missing_is_named(script: ModuleType, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    monkeypatch.setattr(script, "find_spec", lambda name: None if name in ("torch", "peft") else object())
    monkeypatch.setattr(script.shutil, "which", lambda name: None)
    assert not script.look_around(run)
    assert "required packages: missing are torch" in run.summary
    assert "optional packages: missing are peft" in run.summary
    assert "nvidia-smi is not here" in run.summary
