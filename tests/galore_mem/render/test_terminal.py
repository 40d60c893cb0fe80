"""Colours, widths and encodings, as a real process meets them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from galore_mem.commands.app import call
from galore_mem.render.ansi import Depth, escaped
from galore_mem.render.flow import flow
from galore_mem.render.palette import BOUND, CONTEXT, PARTS
from galore_mem.render.plan_overview import VERDICTS
from galore_mem.render.terminal import terminal
from galore_mem.render.text import Text

ROOT = Path(__file__).resolve().parents[3]
STORY = ("plan", "llama-7b", "--gpu", "4090")
BLOCKS = "█▓▒░▚▞▤▪·┃▶"


def plan(*more: str, **variables: str) -> bytes:
    """What the process writes into a pipe."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    environment = {**kept, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "0", "PYTHONIOENCODING": "utf-8", **variables}
    words = [sys.executable, "-m", "galore_mem", *STORY, *more]
    done = subprocess.run(words, env=environment, capture_output=True, check=True)
    assert done.stderr == b""
    return done.stdout


def test_a_pipe_gets_eighty_columns_without_colours() -> None:
    text = plan().decode()
    assert "\x1b" not in text
    assert 70 < max(map(len, text.splitlines())) <= 80
    assert "█" in text


def test_colours_only_where_they_are_wanted() -> None:
    coloured = plan(FORCE_COLOR="1", TERM="xterm-256color").decode()
    assert "\x1b[" in coloured
    bare = plan(NO_COLOR="1", FORCE_COLOR="1", TERM="xterm-256color").decode()
    assert "\x1b[3" not in bare
    assert "does not fit" in bare


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "cp437"])
def test_legacy_encodings_get_letters_in_place_of_blocks(encoding: str) -> None:
    text = plan(PYTHONIOENCODING=encoding).decode(encoding)
    assert "?" not in text
    assert not set(text) & set(BLOCKS) - {"·"}
    assert "W weights" in text
    assert "WWWW" in text


def test_json_is_ascii_under_any_encoding() -> None:
    assert plan("--json", PYTHONIOENCODING="cp1252") == plan("--json")
    plan("--json").decode("ascii")


@pytest.mark.parametrize("width", ["1", "40", "41", "63", "64", "79", "100", "117", "118", "160", "240"])
@pytest.mark.parametrize("more", ["", "--method galore-adamw", "h100 a100-80gb 5090"])
def test_no_line_is_wider_than_the_terminal(
    width: str, more: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    assert call([*STORY, *more.split()]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= max(40, int(width))


@pytest.mark.parametrize(
    ("variables", "depth"),
    [
        ({}, "16"),
        ({"COLORTERM": "truecolor"}, "truecolor"),
        ({"TERM": "xterm-256color"}, "256"),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, "plain"),
        ({"TERM": "dumb"}, "none"),
    ],
)
def test_a_terminal_gets_the_colours_that_it_has(
    variables: dict[str, str], depth: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert terminal().depth == depth


@pytest.mark.parametrize(
    ("depth", "shown"),
    [
        ("none", "ab"),
        ("plain", "\x1b[1ma\x1b[0mb"),
        ("16", "\x1b[1;94ma\x1b[0mb"),
        ("256", "\x1b[1;38;5;25ma\x1b[0mb"),
        ("truecolor", "\x1b[1;38;2;0;114;178ma\x1b[0mb"),
    ],
)
def test_a_style_in_every_depth(depth: Depth, shown: str) -> None:
    assert escaped(Text.assemble(("a", "bold #0072b2"), "b"), depth) == shown


def test_a_line_begins_with_a_word_where_two_spaces_are_broken() -> None:
    assert [line.plain for line in flow(Text("weights  cache"), 7)] == ["weights", "cache"]


def test_pieces_of_a_line_keep_their_styles() -> None:
    line = Text("one ", style="dim").append("two", "bold").append(Text(" three", style="#009e73"))
    assert line.plain == "one two three"
    assert escaped(line[2:6], "plain") == "\x1b[2me \x1b[0m\x1b[1;2mtw\x1b[0m"
    assert len(line) == line.cell_len == 13
    assert Text("模型").cell_len == 4


def test_every_colour_of_the_views_has_a_basic_one() -> None:
    verdicts = [style.split()[1] for _, style in VERDICTS.values()]
    for colour in [*(part.colour for part in (*PARTS, CONTEXT, BOUND)), *verdicts]:
        assert escaped(Text("a", style=colour), "16").startswith("\x1b[")
    basic = [escaped(Text("a", style=part.style), "16") for part in PARTS]
    assert len(set(basic)) == len(PARTS)


@pytest.mark.parametrize("term", ["xterm", "xterm-256color", "vt100"])
def test_whole_views_are_drawn_on_terminals_with_few_colours(term: str) -> None:
    assert "\x1b[" in plan(FORCE_COLOR="1", TERM=term, COLORTERM="").decode()
