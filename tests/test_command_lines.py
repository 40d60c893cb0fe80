"""Every command line in README and docs is one that galore-mem takes, and runs where no GPU is needed."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from galore_mem.commands.app import call
from galore_mem.commands.parser import build
from galore_mem.errors import NoDeviceError
from profiles.models import find_model

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES, RECORDED = ROOT / "docs" / "examples", ROOT / "tests" / "fixtures" / "recorded"
SNAPSHOT = ROOT / "tests" / "fuzz" / "seeds" / "recording" / "torch-2.11-protocol-4.pickle"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINE = re.compile(r"^(?:    |\$ )?(galore-mem [a-z]+\b[^\n]*)$", re.MULTILINE)
SPAN = re.compile(r"`(galore-mem [a-z]+\b[^`]*)`")
PATTERN = re.compile(r"\b[A-Z]{3,}\b|[\[\]]|\.\.\.")
"""What stands for something: `MODEL`, `[options]`, `NAME ...`."""
PARSED_ONLY = ("tui", "calibrate", "validate")
"""They need a terminal or a GPU, or take minutes."""
TAPES = ("run.tape.json.gz", "run.json.gz", "before.tape.json.gz", "after.tape.json.gz")


class CommandLine(NamedTuple):
    """One of them."""

    page: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text.partition("  #")[0])[1:]


def command_lines() -> Iterator[CommandLine]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        shown = re.sub(r"^```console\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)  # tests/test_readme.py
        for found in dict.fromkeys((*LINE.findall(shown), *(" ".join(span.split()) for span in SPAN.findall(shown)))):
            if not PATTERN.search(found.partition("  #")[0]):
                yield CommandLine(str(page.relative_to(ROOT)), found)


LINES = list(command_lines())
DISTINCT = list({tuple(line.words): line for line in LINES}.values())
RUN = [line for line in DISTINCT if line.words[0] not in PARSED_ONLY and len(line.words) > 1]


def test_there_are_many() -> None:
    assert len(DISTINCT) >= 30
    assert len(RUN) >= 18


@pytest.mark.parametrize("line", DISTINCT, ids=lambda line: f"{line.page}: {line.text}")
def test_every_command_line_parses(line: CommandLine) -> None:
    if line.words[1:]:
        build().parse_args(line.words, exit_on_error=False, print_error=False)
    else:
        assert line.words[0] in build()


@pytest.mark.parametrize("line", RUN, ids=lambda line: f"{line.page}: {line.text}")
def test_every_command_line_runs(
    line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if line.words[0] in ("trace", "profile"):
        pytest.importorskip("transformers")
    _provide(tmp_path, made={word for option, word in pairwise(line.words) if option in ("--tape", "-o")})
    monkeypatch.chdir(tmp_path)
    may_say_no = "--check" in line.words or "--budget" in line.words
    if line.words[0] == "profile" or "local" in line.words:
        with suppress(NoDeviceError):  # exit code 3
            assert call(line.words) == 0
        return
    assert call(line.words) in ((0, 1) if may_say_no else (0,))
    said = capsys.readouterr()
    assert said.out or "wrote" in said.err


def _provide(folder: Path, made: set[str]) -> None:
    """The files that the docs speak of, but for those that the line makes."""
    for file in (*EXAMPLES.iterdir(), *RECORDED.glob("decomfl*")):
        shutil.copy(file, folder)
    for name in set(TAPES) - made:
        shutil.copy(EXAMPLES / "step.tape.json.gz", folder / name)
    shutil.copy(SNAPSHOT, folder / "snapshot.pickle")
    (folder / "my-model").mkdir()
    config = json.dumps(dict(find_model("llama-60m").config))
    (folder / "my-model" / "config.json").write_text(config, encoding="utf-8")
