"""The frame of the command line: parse errors, exit codes, streams."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, "-m", "galore_mem", *arguments], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("methds",), ("methds", 'Did you mean "methods"', "galore-mem --help")),
        (("methods", "--jsn"), ("--jsn", "--json", "galore-mem methods --help")),
        (("methods", "surplus"), ("surplus", "galore-mem methods --help")),
        (("methods", "--json=perhaps"), ("--json", "perhaps")),
    ],
    ids=lambda value: " ".join(value),
)
def test_words_that_do_not_parse_give_one_line_and_exit_2(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    for word in words:
        assert word in done.stderr


def test_debug_lets_the_traceback_through() -> None:
    done = run("methods", "--jsn", "--debug")
    assert "Traceback" in done.stderr


def test_version_and_bare_call_answer() -> None:
    assert run("--version").stdout.startswith("galore-mem ")
    bare = run()
    assert bare.returncode == 0
    assert "methods" in bare.stdout


def test_a_closed_pipe_is_no_error() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = f"{sys.executable} -m galore_mem methods | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_is_one_line() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    line = f"{sys.executable} -m galore_mem methods > /dev/full"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr


@pytest.mark.parametrize(
    ("command", "form"),
    [
        *[(command, form) for command in ("methods", "models", "gpus") for form in ("", "--json")],
        *[("plan llama-7b --gpu 4090", form) for form in ("", "--json", "--csv")],
    ],
)
def test_imports_stay_light(command: str, form: str) -> None:
    """The planning commands import no tensor library, and ordinary lines neither rich nor the parser."""
    words = [*command.split(), *([form] if form else [])]
    code = (
        f"import sys; from galore_mem.commands.app import call; call({words!r}); print(*sys.modules, file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    heavy = {"torch", "transformers", "plotly", "textual", "numpy", "rich", "attrs"}
    assert loaded & heavy == set()
    assert "cyclopts" not in loaded
