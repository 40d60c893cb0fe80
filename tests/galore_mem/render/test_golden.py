"""Every output of the planning commands, character by character.

After a change that is meant: `pytest tests/galore_mem/render/test_golden.py --update-golden`, then read the diff.
"""

from pathlib import Path

import pytest

from galore_mem.commands.app import call

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
STORY = "plan llama-7b --gpu 4090"
PER_LAYER = "--method galore-adamw-8bit --update per-layer"
CASES = {
    "plan_story_40.txt": (40, STORY),
    "plan_story_80.txt": (80, STORY),
    "plan_story_140.txt": (140, STORY),
    "plan_story_colours.ansi": (100, STORY),
    "plan_story_ascii.txt": (80, STORY),
    "plan_story.json": (80, f"{STORY} --json"),
    "plan_story.csv": (80, f"{STORY} --csv"),
    "plan_one_40.txt": (40, f"{STORY} {PER_LAYER}"),
    "plan_one_80.txt": (80, f"{STORY} {PER_LAYER}"),
    "plan_one_140.txt": (140, f"{STORY} {PER_LAYER} --checkpointing full --batch 16"),
    "plan_one_no_card.txt": (80, "plan qwen3-0.6b --method adamw"),
    "plan_story_no_card.txt": (80, "plan qwen3-0.6b"),
    "plan_cards_80.txt": (80, "plan llama-7b --gpu 4090 a100-80gb h100 5090 v100-32gb"),
    "plan_cards_40.txt": (40, "plan llama-7b --gpu 4090 h100"),
    "plan_cards.csv": (80, "plan llama-7b --gpu 4090 h100 --csv"),
    "fit_40.txt": (40, "fit llama-7b --gpu 4090"),
    "fit_80.txt": (80, "fit llama-7b --gpu 4090"),
    "fit_120.txt": (120, "fit llama-1b --gpu 4090 4060 h100 --seq 2048 --global-batch 64"),
    "fit_nothing_80.txt": (80, "fit llama-2-70b --gpu 4090 --seq 2048 --min-rank 256 --no-checkpointing"),
    "fit.json": (80, "fit llama-60m --gpu 4090 --method galore-adamw adamw --batch 4 --json"),
    "fit_transformers.py.txt": (120, "fit llama-7b --gpu 4090 --emit transformers"),
    "fit_python.py.txt": (120, "fit llama-7b --gpu 4090 --emit python"),
    "explain_80.txt": (80, "explain llama-7b --gpu 4090 --method galore-adamw-8bit --update per-layer"),
    "explain_40.txt": (40, "explain llama-60m --checkpointing full"),
    "explain.json": (80, "explain llama-60m --method galore-adamw --json"),
    "gpus.txt": (80, "gpus"),
    "gpus.json": (80, "gpus --json"),
    "models.txt": (100, "models"),
    "methods.txt": (80, "methods"),
    "methods.json": (80, "methods --json"),
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
    if name.endswith(".ansi"):
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLORTERM", "truecolor")
    if "ascii" in name:
        monkeypatch.setattr("galore_mem.render.terminal.can_show", lambda text: text.isascii())
    assert call(words.split()) == 0
    found = capsys.readouterr().out
    recorded = GOLDEN / name
    if request.config.getoption("--update-golden"):
        recorded.write_text(found, encoding="utf-8")
    assert found == recorded.read_text(encoding="utf-8")


def test_no_recording_is_left_over() -> None:
    others = "replay_"  # tests/galore_mem/render/test_replay.py records these
    assert {path.name for path in GOLDEN.iterdir() if not path.name.startswith(others)} == set(CASES)


@pytest.mark.parametrize("name", [name for name, (_, words) in CASES.items() if name.endswith(".txt")])
def test_recordings_keep_their_width(name: str) -> None:
    lines = (GOLDEN / name).read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines)) <= CASES[name][0]
    assert all(line == line.rstrip() for line in lines)
