"""What `replay` prints, character by character; recorded anew with `--update-golden`."""

from pathlib import Path

import pytest

from galore_mem.commands.app import call

TESTS = Path(__file__).resolve().parents[2]
RECORDED = TESTS / "fixtures" / "recorded"
SAVED = "lm_training_425m --gpu t4 --other-use 1.3GiB"
CASES = {
    "replay_80.txt": (80, "decomfl"),
    "replay_120.txt": (120, "lm_forward --gpu 4090 h100"),
    "replay_40.txt": (40, "decomfl"),
    "replay_out_of_memory.txt": (80, SAVED),
    "replay_other_settings.txt": (80, "decomfl --alloc-conf max_split_size_mb:64,roundup_power2_divisions:4"),
    "replay_out_of_memory.json": (80, f"{SAVED} --json"),
}


@pytest.mark.parametrize("name", CASES)
def test_output_is_as_recorded(
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    width, words = CASES[name]
    monkeypatch.setenv("COLUMNS", str(width))
    for variable in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    file, *options = words.split()
    assert call(["replay", str(RECORDED / f"{file}.tape.json.gz"), *options]) == 0
    found = capsys.readouterr().out
    recorded = TESTS / "golden" / name
    if request.config.getoption("--update-golden"):
        recorded.write_text(found, encoding="utf-8")
    assert found == recorded.read_text(encoding="utf-8")
    if name.endswith(".txt") and width >= 80:
        assert max(map(len, found.splitlines())) <= width
