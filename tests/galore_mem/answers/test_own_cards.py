"""Cards that a person describes: taken like those of the catalogue, or refused in one line."""

import sys
from pathlib import Path

import pytest

from galore_mem.__main__ import main
from galore_mem.answers.names import resolve_cards
from galore_mem.answers.plan import plan
from profiles.gpus import LARGE_WORKSPACE_BYTES, MIB, derived_usable_bytes

GOOD = """
[[gpu]]
name = "RTX 4090 48GB"
total = "49140MiB"
usable = "48500MiB"
compute_capability = "8.9"
aliases = ["4090-48gb"]

[[gpu]]
name = "H20"
total = "97871MiB"
compute_capability = "9.0"
class = "data-centre"
"""


def test_a_named_file_brings_its_cards(tmp_path: Path) -> None:
    (tmp_path / "cards.toml").write_text(GOOD, encoding="utf-8")
    first, second = (card.gpu for card in resolve_cards((str(tmp_path / "cards.toml"),)))
    assert (first.name, first.usable_bytes, first.architecture) == ("RTX 4090 48GB", 48500 * MIB, "Ada")
    assert second.usable_bytes == derived_usable_bytes(97871 * MIB) // MIB * MIB
    assert second.cublas_workspace_bytes == LARGE_WORKSPACE_BYTES
    result = plan("llama-7b", methods="adamw-8bit", gpus=str(tmp_path / "cards.toml"))
    assert [fit.gpu.name for fit in result.plans[0].fits] == ["RTX 4090 48GB", "H20"]


def test_the_users_own_file_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("galore_mem.answers.own_cards.own_file", lambda: str(tmp_path / "gpus.toml"))
    (tmp_path / "gpus.toml").write_text(GOOD, encoding="utf-8")
    assert [card.gpu.name for card in resolve_cards(("4090-48GB", "h20", "4090"))] == [
        "RTX 4090 48GB",
        "H20",
        "RTX 4090",
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["describes no card"]),
        ("[gpu]\nname = 'x'\n", ["describes no card"]),
        ("[[gpu]\n", ["cannot use"]),
        ("[[gpu]]\ntotal = '8GiB'\n", ["card 1: name is missing"]),
        ("[[gpu]]\nname = 'x'\ncompute_capability = '8.9'\n", ["total is missing"]),
        ("[[gpu]]\nname = 'x'\ntotal = 8\ncompute_capability = '8.9'\n", ["total is 8"]),
        ("[[gpu]]\nname = 'x'\ntotal = '8'\ncompute_capability = '8.9'\n", ["total is '8'", "24564MiB"]),
        ("[[gpu]]\nname = 'x'\ntotal = '8GiB'\n", ["compute_capability is missing"]),
        ("[[gpu]]\nname = 'x'\ntotal = '8GiB'\ncompute_capability = 'sm_89'\n", ["compute_capability is sm_89"]),
        (
            "[[gpu]]\nname = 'x'\ntotal = '8GiB'\nusable = '9GiB'\ncompute_capability = '8.9'\n",
            ["usable is above total"],
        ),
        ("[[gpu]]\nname = 'x'\ntotal = '8GiB'\ncompute_capability = '8.9'\nclass = 'fast'\n", ["class is 'fast'"]),
        ("[[gpu]]\nname = 'x'\ntotal = '8GiB'\ncompute_capability = '8.9'\nmemory = 1\n", ["memory is no key"]),
        ("[[gpu]]\nname = 'x'\ntotal = '8GiB'\ncompute_capability = '8.9'\naliases = 'y'\n", ["aliases is 'y'"]),
    ],
)
def test_a_wrong_card_is_one_line(
    content: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "card.toml").write_text(content, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["galore-mem", "plan", "llama-60m", "--gpu", str(tmp_path / "card.toml")])
    assert main() == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    for word in words:
        assert word in err


def test_no_such_file(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["galore-mem", "plan", "llama-60m", "--gpu", "none.toml"])
    assert main() == 2
    assert "No such file" in capsys.readouterr().err
