"""What `fit` shows of what was asked for."""

import re
import sys

import pytest

import galore_mem as gm
from galore_mem.__main__ import main
from profiles.errors import InputError


def screen(line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["galore-mem", *line.split()])
    assert main() == 0
    return capsys.readouterr().out


def test_lengths_that_are_looked_for_have_a_column(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = screen("fit gpt2 --gpu 4090 --for sequence --method adamw adamw-8bit", capsys, monkeypatch)
    head, row = (line for line in wide.splitlines() if line.startswith(("configuration", "adamw   ")))
    assert "tokens" in head
    assert "batch" not in head
    assert re.search(r" \d+x1,024 ", row)  # the model allows no longer ones
    narrow = ["fit", "gpt2", "--gpu", "4090", "--for", "sequence", "--method", "adamw"]
    monkeypatch.setattr(sys, "argv", ["galore-mem", *narrow])
    monkeypatch.setenv("COLUMNS", "40")
    assert main() == 0
    assert re.search(r"tokens \d+x1,024, at most", capsys.readouterr().out)


def test_sequences_at_once_stand_beside_the_length_that_ends_the_search(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = screen("fit llama-7b --gpu 4090 --for sequence", capsys, monkeypatch)
    (batch,) = re.findall(r"batch (\d+) of 2,048 tokens\n0  ", text)
    (row,) = (line for line in text.splitlines() if f" {batch}x2,048 " in line)
    assert len(row) <= 80


def test_a_rank_that_is_the_whole_width_is_not_called_a_low_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = screen("fit llama-60m --gpu 3060 --for rank", capsys, monkeypatch)
    assert "Take galore-adamw r512" in text
    assert "this rank is the whole space: adamw updates along the same" in " ".join(text.split())
    assert "is the whole space" not in screen("fit llama-60m --gpu 3060 --for batch", capsys, monkeypatch)


def test_a_wish_that_there_is_not_is_refused_by_its_name() -> None:
    with pytest.raises(InputError, match="no wish is called 'min_ranks' here") as caught:
        gm.fit("llama-7b", gpus="4090", min_ranks=256)
    assert "min_rank" in str(caught.value)


def test_each_public_name_is_listed_once() -> None:
    assert len(dir(gm)) == len(set(dir(gm)))
