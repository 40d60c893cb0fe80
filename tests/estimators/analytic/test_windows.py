"""Sliding windows: which kernel runs in which layer, and steps beyond the window against their traces."""

from typing import Any

import pytest

from estimators.analytic.attention import attention_kernel
from estimators.analytic.ledger import layer_counts, layer_ledger
from estimators.analytic.windows import kernel_beside_mask, played_layers
from estimators.checks import check
from estimators.workload import Batch, Workload
from profiles.configs import shape_from_config
from profiles.errors import InputError
from profiles.gpus import find_gpu
from profiles.shapes import FULL, SLIDING

SIZES: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 176,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 500,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
WINDOW = 48
MISTRAL = SIZES | {"model_type": "mistral", "sliding_window": WINDOW}
MIXED = SIZES | {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2}


def load(config: dict[str, Any], tokens: int, **words: Any) -> Workload:  # noqa: ANN401
    return Workload(model=shape_from_config(config, "small"), batch=Batch(sequence_length=tokens), **words)


def test_flash_runs_up_to_the_window() -> None:
    assert attention_kernel(load(MISTRAL, WINDOW - 1), None) == "flash"
    assert attention_kernel(load(MISTRAL, WINDOW), None) == "efficient"
    with pytest.raises(InputError, match=r"takes no mask, and a window of 48 tokens is reached"):
        attention_kernel(load(MISTRAL, WINDOW, attention="flash"), None)


def test_cudnn_takes_the_mask_but_no_dropout_beside_it() -> None:
    hopper = find_gpu("h100")
    assert attention_kernel(load(MISTRAL, WINDOW), hopper) == "cudnn"
    assert attention_kernel(load(MISTRAL, WINDOW, dropout=0.1), hopper) == "efficient"


@pytest.mark.parametrize(
    ("words", "full", "sliding"),
    [
        ({}, "flash", "efficient"),
        ({"precision": "fp32"}, "math", "efficient"),
        ({"attention": "math"}, "math", "math"),
        ({"attention": "eager"}, "eager", "eager"),
    ],
)
def test_layers_of_either_kind_have_a_kernel_each(words: dict[str, Any], full: str, sliding: str) -> None:
    workload = load(MIXED, WINDOW, **words)
    kernel = attention_kernel(workload, None)
    assert (kernel, kernel_beside_mask(workload, kernel)) == (full, sliding)


def test_all_layers_are_played_only_where_they_differ() -> None:
    assert played_layers(load(MIXED, WINDOW - 1)) == 3
    assert played_layers(load(MIXED, WINDOW)) == 5
    assert played_layers(load(MIXED, WINDOW, padding=True)) == 3
    assert played_layers(load(MIXED, WINDOW, attention="eager")) == 3
    assert played_layers(load(MISTRAL, WINDOW)) == 3


ALTERNATING = [SLIDING, FULL, SLIDING, FULL, SLIDING]
RUNS: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    (MISTRAL, {"batch": 2}),
    (MISTRAL, {"batch": 2, "checkpointing": "full"}),
    (MISTRAL, {"attention": "eager", "batch": 2}),
    (MISTRAL | {"num_key_value_heads": 1}, {"batch": 2}),
    (MISTRAL | {"num_key_value_heads": 1}, {"attention": "eager", "batch": 2, "precision": "amp-bf16"}),
    (MIXED, {"batch": 2}),
    (MIXED, {"precision": "fp32", "batch": 2}),
    (MIXED, {"precision": "amp-bf16", "batch": 2}),
    (MIXED, {"checkpointing": "full", "method": "lora", "rank": 4}),
    (MIXED, {"attention": "eager", "padding": True}),
    (SIZES | {"model_type": "phi3", "sliding_window": WINDOW}, {"batch": 2}),
    (
        MIXED
        | {
            "model_type": "qwen3",
            "head_dim": 32,
            "layer_types": ["sliding_attention", "full_attention"] * 2 + ["full_attention"],
        },
        {},
    ),
)


@pytest.mark.parametrize(("config", "way"), RUNS, ids=lambda part: part.get("model_type") or f"{part}")
def test_a_step_beyond_the_window_is_its_trace(config: dict[str, Any], way: dict[str, Any]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from benchmarks.ledger_diff import compare, printed, workload_of

    found = compare(workload_of(config, "small", **way))
    assert found.worst_error <= 0.001, "\n".join(printed(found))
    assert abs(found.peak_error) <= 0.0002


def test_the_ledger_tells_kinds_of_layers_apart() -> None:
    workload = load(MIXED, WINDOW)
    assert layer_counts(workload) == {SLIDING: 3, FULL: 2}
    sliding, full = (
        {entry.name: entry.nbytes for entry in layer_ledger(workload, "flash", kind)} for kind in (SLIDING, FULL)
    )
    assert sliding["self_attn.additive mask"] == 2 * WINDOW * WINDOW
    assert "self_attn.additive mask" not in full
    assert sliding["self_attn.k repeated"] == 2 * WINDOW * 96
    assert layer_counts(load(MIXED, WINDOW - 1)) == {"": 5}
    assert layer_ledger(load(MISTRAL | {"num_hidden_layers": 1}, WINDOW), "efficient")


def test_a_reached_window_is_said() -> None:
    (note,) = check(load(MIXED, WINDOW))
    assert note.startswith("from 48 tokens on 3 of 5 layers take a mask")
    assert check(load(MIXED, WINDOW - 1)) == ()
    assert check(load(MIXED, WINDOW, attention="eager")) == ()
