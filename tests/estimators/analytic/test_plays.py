"""Plays that are written from others are, event by event, what playing them would have made."""

from dataclasses import fields, replace
from typing import Any

import pytest

from estimators.analytic.attention import attention_kernel
from estimators.analytic.families import family_of
from estimators.analytic.shadow.fold import folded
from estimators.analytic.shadow.parts import parts_of
from estimators.analytic.shadow.periods import NotAlikeError
from estimators.analytic.shadow.play import Played, from_fewer_layers, play, play_folded, played
from estimators.analytic.shadow.splice import body_of, held_by_layers
from estimators.analytic.shadow.structure import Structure
from estimators.analytic.shadow.tape import Kind
from estimators.analytic.structure import PLAYED_LAYERS, structure_of
from estimators.workload import Batch, Method, Workload
from galore_mem.answers.names import resolve_model

RUNS: list[dict[str, Any]] = [
    {},
    {"checkpointing": "full", "loss": "chunked"},
    {"method": Method(name="lora", rank=8), "checkpointing": "full"},
    {"precision": "fp32", "batch": Batch(micro_batch_size=2, sequence_length=4096, gradient_accumulation_steps=2)},
]
"""Sequences reach every window."""


def structure(name: str, **words: Any) -> Structure:  # noqa: ANN401
    workload = Workload(model=resolve_model(name).shape, **{"batch": Batch(sequence_length=4096), **words})
    return structure_of(workload, attention_kernel(workload, None))


def assert_same(found: Played, wanted: Played) -> None:
    for field in fields(Played):
        if field.name != "lone" or found.lone:
            assert getattr(found, field.name) == getattr(wanted, field.name), field.name


@pytest.mark.parametrize("name", ["llama-7b", "gpt2", "qwen3-30b-a3b", "phi-2", "opt-350m", "bloom-560m", "falcon-7b"])
@pytest.mark.parametrize("run", RUNS[:3])
def test_a_per_layer_update_ends_gradients_where_they_are_complete(name: str, run: dict[str, Any]) -> None:
    words = run if name.startswith(("llama", "qwen")) else run | {"loss": "full"}
    whole = structure(name, **words, batch=Batch(sequence_length=128))
    assert played(whole).lone
    for ended in (replace(whole, update_in_backward=True), replace(whole, gradients_into_buckets=True)):
        assert_same(play(ended), played(ended))


@pytest.mark.parametrize("name", ["gemma-2-2b", "gemma-3-1b", "gpt-oss-20b", "t5-base"])
@pytest.mark.parametrize("run", RUNS)
def test_layers_that_repeat_are_written_from_those_that_were_played(name: str, run: dict[str, Any]) -> None:
    words = run | ({"loss": "full", "batch": Batch(sequence_length=128)} if name == "t5-base" else {})
    asked = structure(name, **words)
    found = from_fewer_layers(asked)
    if asked.layers == PLAYED_LAYERS:
        assert found is None
        return
    assert found is not None
    assert_same(found, played(asked))


def test_what_lets_go_of_every_layer_by_itself_is_played() -> None:
    """A key-value cache knows the layers one by one."""
    asked = structure("gemma-2-2b", use_cache=True)
    assert from_fewer_layers(asked) is None
    assert_same(play(asked), played(asked))


LAYERED = [
    "llama-7b",
    "mistral-7b-v0.1",
    "qwen2.5-7b",
    "qwen3-4b",
    "mixtral-8x7b",
    "gemma-2-2b",
    "gemma-3-1b",
    "phi-3-mini",
    "olmo-2-7b",
    "gpt-oss-20b",
]
PER_LAYER = Method(name="galore-adamw", rank=8, update="per-layer")
VARIANTS: list[dict[str, Any]] = [
    {"loss": "chunked", "batch": Batch(micro_batch_size=3, sequence_length=4096)},
    {"method": Method(name="lora", rank=8), "loss": "chunked", "batch": Batch(micro_batch_size=2, sequence_length=256)},
    {"checkpointing": "full", "batch": Batch(sequence_length=4096, gradient_accumulation_steps=4)},
    {"method": PER_LAYER, "loss": "chunked", "batch": Batch(sequence_length=1500, gradient_accumulation_steps=4)},
    {
        "method": Method(name="qlora", rank=8),
        "checkpointing": "full",
        "loss": "chunked",
        "batch": Batch(micro_batch_size=2, sequence_length=4096, gradient_accumulation_steps=2),
    },
]


def named(step: Played) -> list[tuple[bool, Kind]]:
    return [(code > 0, step.kinds[abs(code) - 1]) for code in step.events]


@pytest.mark.parametrize("name", LAYERED)
@pytest.mark.parametrize("run", VARIANTS)
def test_layers_of_one_step_fit_into_others(name: str, run: dict[str, Any]) -> None:
    asked = structure(name, **run)
    found, regions = play_folded(asked)
    short, repeated = family_of(asked.family).shortened(asked)
    repeated = tuple(one for one in repeated if one.more)
    whole = played(short)
    wanted, expected = folded(whole, repeated) if repeated else (whole, regions)
    assert (named(found), found.marks, found.product) == (named(wanted), wanted.marks, wanted.product)
    assert (dict(found.needs), regions) == (dict(wanted.needs), expected)
    if found.lone:
        assert [found.kinds[-code - 1] for code in found.lone] == [wanted.kinds[-code - 1] for code in wanted.lone]
    assert not found.births, "it was put together"


def test_layers_that_leave_something_behind_are_not_put_elsewhere() -> None:
    """Autocast's copies of their weights end between forward and backward."""
    asked = structure("llama-7b", precision="amp-bf16", checkpointing="full")
    whole = played(asked)
    hollow = played(asked, held_by_layers(whole))
    assert len(parts_of(hollow)) == 1
    with pytest.raises(NotAlikeError):
        body_of(whole, hollow, whole)
