"""`galore-mem trace`: bad input in one line, and an interrupt that leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from galore_mem import interrupts
from galore_mem.__main__ import main
from galore_mem.errors import UsageError
from galore_mem.tapes.atomic import write_bytes
from profiles.models import find_model

CONFIG = dict(find_model("llama-60m").config)
ROOT = Path(__file__).resolve().parents[3]


def refusal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """The one line on stderr of a command line that is bad input."""
    monkeypatch.setattr(sys, "argv", ["galore-mem", "trace", *words])
    code = main()
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("llama-60m", "--lengths", "9"), "names 1 steps"),
        (("llama-60m", "--lengths", "9:x"), "no range of lengths"),
        (("llama-60m", "--steps", "0"), "--steps 0"),
        (("llama-60m", "--method", "adamw", "sgd"), "one --method"),
        (("llama-60m", "--tape", "no/such/folder/out.json.gz"), "there is no folder no/such/folder"),
        (("llama-60m", "--snapshot", "."), "it is a folder"),
        (("llama-60m", "--tape", os.devnull, "--force"), "it is no ordinary file"),
        (("llama-60m", "--snapshot", __file__), "add --force to replace it"),
        (("llama-60m", "--tape", "new", "--report", "./new"), "two results would go into"),
    ],
)
def test_bad_words_are_refused_before_anything_is_imported(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    if said == "names 1 steps":
        words = (*words, "--steps", "4")
    assert said in refusal(capsys, monkeypatch, *words)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"num_attention_heads": 7}, "not a multiple of num_attention_heads 7"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
    ],
)
def test_configs_that_make_no_sense(
    change: dict[str, Any],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(CONFIG | change))
    assert said in refusal(capsys, monkeypatch, str(file))


def test_interrupt_at_every_stage_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from contextlib import contextmanager

    from galore_mem.answers.steps import STAGES
    from galore_mem.render import progress

    def stopping_at(wanted: str) -> Any:  # noqa: ANN401
        def told(stage: str) -> None:
            if stage == wanted:
                signal.raise_signal(signal.SIGINT)

        @contextmanager
        def scope() -> Any:  # noqa: ANN401
            yield told

        return scope

    model, folder = tmp_path / "config.json", tmp_path / "out"
    model.write_text(json.dumps(CONFIG | {"num_hidden_layers": 1}))
    folder.mkdir()
    words = ["galore-mem", "trace", str(model), "--method", "sgd", "--seq", "8", "--tape", str(folder / "tape")]
    monkeypatch.setattr(sys, "argv", words)
    for stage in STAGES:
        monkeypatch.setattr(progress, "progress", stopping_at(stage))
        assert main() == 130, stage
        assert capsys.readouterr() == ("", "error: interrupted\n")
        assert list(folder.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process alone")
def test_interrupt_from_outside(tmp_path: Path) -> None:
    """While torch is being imported, or later: whenever it comes."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-P", "-m", "galore_mem", "trace", "llama-7b", "--snapshot", "out.pickle", "--json"]
    process = subprocess.Popen(line, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.decode()) == (130, b"", "error: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_interrupt_in_a_finaliser_is_not_lost() -> None:
    class Storage:
        pass

    def bury(_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    def run() -> None:
        storage = Storage()
        watch = weakref.ref(storage, bury)
        del storage
        assert watch() is None, "the run went on"
        time.sleep(60)

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt), interrupts.kept():
        run()
    assert time.monotonic() - begun < 30, "it came at the end only"


def test_interrupt_that_a_library_turns_into_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As imports of transformers do with one that falls into a `__set_name__`."""

    class Named:
        def __set_name__(self, owner: type, name: str) -> None:
            signal.raise_signal(signal.SIGINT)

    def importing(_: str) -> None:
        try:
            type("Attention", (), {"kernel": Named()})
        except BaseException as error:
            raise ModuleNotFoundError("Could not import module 'Attention'") from error

    monkeypatch.setattr("galore_mem.answers.trace.run_asked", lambda *_: importing(""))
    monkeypatch.setattr(sys, "argv", ["galore-mem", "trace", "llama-60m"])
    assert main() == 130
    assert capsys.readouterr() == ("", "error: interrupted\n")


def test_interrupt_that_is_swallowed_comes_at_the_end() -> None:
    with pytest.raises(KeyboardInterrupt), interrupts.kept(), suppress(BaseException):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interrupt_that_comes_again_too_late_is_called_off() -> None:
    """It would kill a process that has said what happened, and is ending."""

    class Storage:
        pass

    storage = [Storage()]
    watch = weakref.ref(storage[0], lambda _: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt), interrupts.kept():
        storage.clear()
    assert watch() is None
    time.sleep(2 * interrupts.AGAIN_SECONDS)


@pytest.mark.skipif(sys.platform == "win32", reason="no process ends by a signal there")
def test_interrupt_while_a_dataclass_is_made_ends_with_the_exit_code(tmp_path: Path) -> None:
    script = tmp_path / "made.py"
    script.write_text(
        "import sys\nfrom galore_mem.outcomes import report\n"
        "try:\n    exec('raise KeyboardInterrupt')\nexcept KeyboardInterrupt as error:\n    sys.exit(report(error))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, b"error: interrupted\n")


def test_interrupted_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "out", b"half")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    with pytest.raises(UsageError, match="cannot write"):
        write_bytes(tmp_path / "no" / "out", b"")
