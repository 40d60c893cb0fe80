"""Colours, widths and encodings, as a real process meets them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
def test_no_line_is_wider_than_the_terminal(width: str) -> None:
    for more in ((), ("--method", "galore-adamw"), ("h100", "a100-80gb", "5090")):
        lines = plan(*more, COLUMNS=width).decode().splitlines()
        assert max(map(len, lines)) <= max(40, int(width))
