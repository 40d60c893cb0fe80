"""Workloads that contradict themselves, and those worth a note."""

from dataclasses import replace

import pytest

from estimators.checks import check, closed_form_notes
from estimators.workload import Batch, Method, Workload
from profiles.errors import InputError
from profiles.gpus import find_gpu
from profiles.models import find_model

LOAD = Workload(model=find_model("llama-60m").shape)


def test_an_ordinary_workload_needs_no_note() -> None:
    assert check(LOAD, find_gpu("4090")) == ()


def test_per_layer_with_accumulation_contradicts_galore_torch_only() -> None:
    batch = Batch(gradient_accumulation_steps=4)
    method = Method(name="galore-adamw", rank=8, update="per-layer", implementation="galore-torch")
    with pytest.raises(InputError, match=r"every micro-batch.*--implementation galore-mem"):
        check(replace(LOAD, batch=batch, method=method))
    check(replace(LOAD, batch=batch, method=replace(method, implementation="galore-mem")))


def test_allocator_settings_are_read_as_torch_reads_them_and_noted() -> None:
    load = replace(LOAD, allocator_settings="expandable_segments:True")
    assert check(load) == ()
    (note,) = closed_form_notes(load)
    assert "default settings" in note
    assert closed_form_notes(LOAD) == ()
    with pytest.raises(InputError, match="unknown key 'foo'"):
        check(replace(LOAD, allocator_settings="foo:1"))


@pytest.mark.parametrize(
    ("card", "settings", "notes"),
    [
        ("mi300x", "expandable_segments:True", 1),
        ("mi250x", "max_split_size_mb:128,expandable_segments:True", 1),
        ("mi300x", "expandable_segments:False", 0),
        ("mi300x", "max_split_size_mb:128", 0),
        ("4090", "expandable_segments:True", 0),
    ],
)
def test_where_torch_may_not_know_expandable_segments_is_said(card: str, settings: str, notes: int) -> None:
    found = check(replace(LOAD, allocator_settings=settings), find_gpu(card))
    assert len(found) == notes
    assert all("torch 2.12 or later, built with ROCm 7" in note for note in found)


@pytest.mark.parametrize("name", ["galore-adamw", "low-rank"])
def test_a_rank_above_a_matrix_is_noted(name: str) -> None:
    assert check(replace(LOAD, method=Method(name=name, rank=512))) == ()
    (note,) = check(replace(LOAD, method=Method(name=name, rank=513)))
    assert note.startswith("rank 513 is above the smaller side of 56 target matrices (at most 512)")


def test_lora_may_have_a_rank_above_the_matrix() -> None:
    assert check(replace(LOAD, method=Method(name="lora", rank=4096))) == ()


def test_more_tokens_than_positions_are_noted() -> None:
    (note,) = check(replace(LOAD, batch=Batch(sequence_length=2049)))
    assert "2049 tokens are more than the 2048 positions" in note


@pytest.mark.parametrize(("card", "precision", "notes"), [("v100-16gb", "bf16", 1), ("v100-16gb", "amp-fp16", 0)])
def test_bf16_on_a_card_without_it_is_noted(card: str, precision: str, notes: int) -> None:
    assert len(check(replace(LOAD, precision=precision), find_gpu(card))) == notes  # type: ignore[arg-type]


def test_cards_of_other_makers_have_no_compute_capability() -> None:
    assert check(LOAD, find_gpu("mi300x")) == ()
