"""README and docs show what the program prints; `pytest tests/test_readme.py --update-golden` writes them anew."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from galore_mem.commands.app import call

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
EXAMPLES, RECORDED = ROOT / "docs" / "examples", ROOT / "tests" / "fixtures" / "recorded"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```console\n\$ galore-mem (?P<words>[^\n]+)\n(?P<shown>.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_example_is_what_the_program_prints(
    page: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for file in (*EXAMPLES.iterdir(), *RECORDED.glob("decomfl*")):
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    for variable in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(variable, raising=False)

    def printed(block: re.Match[str]) -> str:
        assert call(shlex.split(block["words"])) == 0
        return f"```console\n$ galore-mem {block['words']}\n{capsys.readouterr().out}```"

    text = page.read_text(encoding="utf-8")
    if "```console\n$ galore-mem trace" in text:
        pytest.importorskip("transformers")
    found, count = BLOCK.subn(printed, text)
    assert count >= (4 if page == README else 0)
    if request.config.getoption("--update-golden"):
        page.write_text(found, encoding="utf-8")
        text = found
    assert text == found


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    exec(compile(code, str(README), "exec"), {})
    assert re.fullmatch(r"fits \d+ \d+\n", capsys.readouterr().out)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_files_that_it_names_exist(page: Path) -> None:
    for name in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / name).exists(), name
