"""A small LLaMA on real text: as good as the reference, and refreshes as good as an exact SVD's."""

import warnings

import pytest
import torch

from benchmarks.galore_memory import table
from benchmarks.galore_quality import Setting, ours, reference, smoothed, standard_library_bytes, train


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


SETTING = Setting(
    hidden_size=64,
    intermediate_size=176,
    layers=2,
    sequence_length=64,
    steps=90,
    warmup_steps=10,
    rank=16,
    update_proj_gap=20,
)


@pytest.fixture
def _quiet() -> None:
    warnings.simplefilter("ignore")


@pytest.mark.usefixtures("_quiet")
def test_loss_and_captured_energy() -> None:
    mine, theirs = train(SETTING, ours(SETTING)), train(SETTING, reference(SETTING))
    last, their_last = smoothed(mine.losses)[-1], smoothed(theirs.losses)[-1]
    assert their_last < 0.6 * theirs.losses[0]
    assert last < 1.02 * their_last
    assert mine.validation_loss < 1.02 * theirs.validation_loss
    assert len(mine.captured) == 14 * 5
    assert sum(mine.captured) / len(mine.captured) > 0.999
    assert min(mine.captured) > 0.995


def test_the_text_is_real() -> None:
    text = bytes(standard_library_bytes(5000).tolist())
    assert b"def " in text


@pytest.mark.usefixtures("_quiet")
def test_the_documented_memory_table_is_what_is_counted() -> None:
    with open("docs/galore.md", encoding="utf-8") as file:
        assert table() in file.read()
