"""galore-mem inside a folder whose own modules bear the names it uses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAP = 'raise RuntimeError("a stranger\'s module was imported")\n'
NAMES = [
    "estimators.py",
    "profiles/__init__.py",
    "torch.py",
    "transformers/__init__.py",
    "rich.py",
    "cyclopts.py",
    "json.py",
    "galore.py",
    "galore_mem_notes.py",
    "commands.py",
    "render.py",
    "answers.py",
    "neighbours.py",
    "tapes.py",
    "optim.py",
    "plan.py",
    "attrs.py",
]
SCRIPT = "import sys\nfrom galore_mem.__main__ import main\nsys.exit(main())\n"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A project folder that shadows everything."""
    folder = tmp_path / "their project"
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(TRAP)
    return folder


def run(arguments: list[str], folder: Path, *path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, ROOT]))}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


COMMANDS = [
    ["plan", "llama-7b", "--gpu", "4090"],
    ["plan", "llama-7b", "--gpu", "4090", "--json"],
    ["gpus", "--json"],
    ["--help"],
    ["--version"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_module_run_ignores_the_current_folder(hostile: Path, command: list[str]) -> None:
    done = run(["-m", "galore_mem", *command], hostile)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_console_script_ignores_the_current_folder(hostile: Path, tmp_path: Path, command: list[str]) -> None:
    script = tmp_path / "bin" / "galore-mem"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    done = run([str(script), *command], hostile)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("name", ["estimators", "profiles"])
def test_a_shadowed_room_is_answered_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text(TRAP)
    done = run(["-m", "galore_mem", "methods"], tmp_path.parent, tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert str(tmp_path / f"{name}.py") in done.stderr
    assert "rename it" in done.stderr


def test_the_package_and_what_people_import_stay_clear_of_the_rooms(hostile: Path) -> None:
    """A training script's own `estimators` and `profiles` keep working beside galore-mem."""
    (hostile / "estimators.py").write_text("WHOSE = 'theirs'\n")
    (hostile / "profiles" / "__init__.py").write_text("WHOSE = 'theirs'\n")
    (hostile / "train.py").write_text(
        "import galore_mem, galore_mem.tapes, estimators, profiles\n"
        "print(estimators.WHOSE, profiles.WHOSE, galore_mem.__version__)\n"
    )
    for name in ("json.py", "attrs.py", "cyclopts.py", "rich.py"):
        (hostile / name).unlink()
    done = run(["train.py"], hostile)
    assert done.stderr == ""
    assert done.stdout.startswith("theirs theirs ")


def test_using_a_room_in_a_hostile_script_gives_the_one_line(hostile: Path) -> None:
    (hostile / "train.py").write_text("import galore_mem.answers\n")
    done = run(["train.py"], hostile)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "NeighbourError" in last
    assert str(hostile) in last


def test_recording_in_a_hostile_script_touches_nobody_elses_modules(tmp_path: Path) -> None:
    """`gm.profile` records and writes beside modules that would not even import."""
    pytest.importorskip("torch")
    (tmp_path / "estimators.py").write_text(TRAP)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "__init__.py").write_text(TRAP)
    (tmp_path / "train.py").write_text(
        "import sys, torch, galore_mem as gm\n"
        "layer = torch.nn.Linear(64, 64)\n"
        "optimizer = torch.optim.AdamW(layer.parameters())\n"
        "with gm.profile('out.json.gz', device='cpu') as p:\n"
        "    layer(torch.ones(4, 64)).sum().backward()\n"
        "    optimizer.step()\n"
        "    p.step()\n"
        "print(p.tape.source, {'estimators', 'profiles'} & set(sys.modules))\n"
    )
    done = run(["train.py"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "replayed set()\n"
    assert (tmp_path / "out.json.gz").exists()
