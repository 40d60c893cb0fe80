"""From options to workloads."""

from typing import Any

import pytest

from galore_mem.answers.settings import LORA_RANK, STORY, Settings, settings_from, workloads
from profiles.errors import InputError
from profiles.models import find_model

MODEL = find_model("llama-7b").shape


def test_no_method_tells_the_story() -> None:
    told = workloads(MODEL, [], Settings())
    assert [(load.method.name, load.method.update) for load in told] == list(STORY)
    assert [load.method.rank for load in told] == [None, None, LORA_RANK, 1024, 1024, 1024]


def test_one_method_gives_exactly_one_plan_with_the_documented_defaults() -> None:
    (load,) = workloads(MODEL, ["galore-adamw"], Settings())
    method, batch = load.method, load.batch
    assert (method.update, method.implementation, method.rank) == ("whole", "galore-mem", MODEL.hidden_size // 4)
    assert (batch.micro_batch_size, batch.sequence_length, batch.gradient_accumulation_steps) == (1, 256, 1)
    assert (load.precision, load.attention, load.checkpointing, load.loss) == ("bf16", "auto", "none", "full")


def test_a_method_named_twice_is_one_plan() -> None:
    assert len(workloads(MODEL, ["adamw", "adamw"], Settings())) == 1


def test_an_update_for_the_whole_story_merges_rows_that_become_equal() -> None:
    told = workloads(MODEL, [], Settings(update="per-layer"))
    assert len(told) == len(STORY) - 1
    assert {load.method.update for load in told} == {"per-layer"}


def test_settings_reach_the_methods_that_have_them_and_no_others() -> None:
    full, galore = workloads(MODEL, ["adamw", "galore-adamw"], Settings(rank=64, proj_type="right"))
    assert (full.method.rank, full.method.proj_type) == (None, "std")
    assert (galore.method.rank, galore.method.proj_type) == (64, "right")


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("adamw", {"rank": 64}),
        ("adamw", {"target_modules": ("mlp",)}),
        ("lora", {"proj_type": "std"}),
        ("lora", {"implementation": "galore-torch"}),
        ("lora", {"update_proj_gap": 100}),
        ("adamw", {"scale": 0.25}),
        ("galore-adamw", {"quant_blocksize": 2048}),
        ("adamw-8bit", {"optimizer_kernel": "fused"}),
    ],
)
def test_a_setting_that_no_method_has_is_refused_with_one_that_has_it(method: str, words: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"means nothing to {method}.*--method"):
        workloads(MODEL, [method], Settings(**words))


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ({"rank": 0}, "--rank 0"),
        ({"rank": -4}, "--rank -4"),
        ({"rank": True}, "--rank True"),
        ({"batch": 0}, "--batch 0"),
        ({"seq": 0}, "--seq 0"),
        ({"seq": -256}, "--seq -256"),
        ({"grad_accumulation": 0}, "--grad-accumulation 0"),
        ({"update_proj_gap": 0}, "--update-proj-gap 0"),
        ({"scale": 0.0}, "--scale 0.0"),
        ({"scale": float("nan")}, "--scale nan"),
        ({"dropout": 1.0}, "--dropout 1.0"),
        ({"dropout": float("nan")}, "--dropout nan"),
        ({"quant_blocksize": 100}, "--quant-blocksize 100"),
        ({"update": "layerwise"}, "--update 'layerwise'"),
        ({"precision": "fp8"}, "--precision 'fp8'"),
    ],
)
def test_values_that_mean_nothing_are_refused_by_name(words: dict[str, Any], option: str) -> None:
    with pytest.raises(InputError, match=option):
        Settings(**words)


def test_an_unknown_keyword_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"sequence.*seq"):
        settings_from({"sequence": 128})


def test_one_pattern_need_not_be_a_tuple() -> None:
    assert settings_from({"target_modules": "mlp"}).target_modules == ("mlp",)
