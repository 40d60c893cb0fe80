"""`gpus`, `models` and `methods`."""

import json

import pytest

from estimators.workload import METHODS
from galore_mem.commands.app import call
from profiles.gpus import all_gpus
from profiles.models import all_models

NAMES = {
    "gpus": [row.name for row in all_gpus()],
    "models": [row.name for row in all_models()],
    "methods": list(METHODS),
}


@pytest.mark.parametrize("command", NAMES)
def test_json_names_every_row_and_its_source(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call([command, "--json"]) == 0
    out = capsys.readouterr().out
    data = json.loads(out)
    assert [row["name"] for row in data[command]] == NAMES[command]
    assert out == json.dumps(data, indent=2, sort_keys=True) + "\n"
    if command == "gpus":
        assert all(row["source"] and isinstance(row["usable_bytes"], int) for row in data["gpus"])
    if command == "models":
        assert all(row["parameters"] > 0 and row["family"] for row in data["models"])


@pytest.mark.parametrize("width", [40, 80, 140])
@pytest.mark.parametrize("command", NAMES)
def test_lists_name_every_row_and_keep_the_width(
    command: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert call([command]) == 0
    out = capsys.readouterr().out
    for name in NAMES[command]:
        assert name in out
    assert max(map(len, out.splitlines())) <= width


def test_models_without_a_ledger_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    call(["models"])
    planned, refused = capsys.readouterr().out.split("plan refuses them")
    assert "qwen3-8b" in planned
    assert "deepseek-v2-lite" in refused


@pytest.mark.parametrize("width", [60, 80, 140])
def test_names_to_type_are_never_cut_in_two(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    call(["models"])
    words = capsys.readouterr().out.replace(",", " ").split()
    assert {alias for row in all_models() for alias in row.aliases} <= set(words)
