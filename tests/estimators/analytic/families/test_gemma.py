"""Gemma, Gemma 2 and Gemma 3: parameters and buffers against transformers, steps against their traces."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.analytic.attention import attention_kernel
from estimators.analytic.buffers import buffers
from estimators.analytic.ledger import layer_ledger
from estimators.analytic.parameters import model_parameters, parameter_count
from estimators.checks import check
from profiles.configs import shape_from_config
from profiles.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

SIZES: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 176,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 500,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "gemma": SIZES | {"model_type": "gemma"},
    "gemma2": SIZES | {"model_type": "gemma2", "sliding_window": 48},
    "gemma3": SIZES | {"model_type": "gemma3_text", "sliding_window": 48, "sliding_window_pattern": 3},
}
CONFIGS["gemma3 below its window"] = CONFIGS["gemma3"] | {"num_hidden_layers": 3}
RUNS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("gemma", {"precision": "amp-bf16", "batch": 2}),
    ("gemma", {"checkpointing": "full", "batch": 2}),
    ("gemma", {"attention": "math", "batch": 2, "precision": "fp32"}),
    ("gemma2", {}),
    ("gemma2", {"precision": "amp-bf16", "batch": 2, "dropout": 0.1}),
    ("gemma2", {"checkpointing": "full", "batch": 2}),
    ("gemma2", {"loss": "chunked", "padding": True, "batch": 2}),
    ("gemma2", {"method": "lora", "rank": 4}),
    ("gemma3", {"batch": 2}),
    ("gemma3", {"precision": "fp32", "batch": 2}),
    ("gemma3", {"checkpointing": "full", "precision": "amp-bf16"}),
    ("gemma3", {"method": "low-rank", "rank": 4, "update": "per-layer"}),
    ("gemma3 below its window", {"seq": 32, "grad_accumulation": 3}),
)
"""From 48 tokens on, layers have windows; steps here have 64 unless they say otherwise."""


@pytest.mark.parametrize(("name", "way"), RUNS, ids=lambda part: part if isinstance(part, str) else f"{part}")
def test_a_step_is_its_trace(name: str, way: dict[str, Any], workload_of: Any, assert_like_trace: Any) -> None:  # noqa: ANN401
    assert_like_trace(workload_of(CONFIGS[name], **way))


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_biases_and_an_untied_head_are_there(name: str, workload_of: Any, assert_like_trace: Any) -> None:  # noqa: ANN401
    change = {"attention_bias": True, "tie_word_embeddings": False, "final_logit_softcapping": 30.0}
    assert_like_trace(workload_of(CONFIGS[name] | change, precision="amp-bf16"))


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    groups, shared, layers = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 7))
    config: dict[str, Any] = {
        "model_type": draw(st.sampled_from(["gemma", "gemma2", "gemma3_text"])),
        "hidden_size": groups * shared * draw(st.integers(1, 20)),
        "intermediate_size": draw(st.integers(1, 50)),
        "num_hidden_layers": layers,
        "num_attention_heads": groups * shared,
        "num_key_value_heads": groups,
        "head_dim": 2 * draw(st.integers(1, 16)),
        "vocab_size": draw(st.integers(4, 90)),
        "tie_word_embeddings": draw(st.booleans()),
        "attention_bias": draw(st.booleans()),
    }
    if config["model_type"] == "gemma3_text":
        config["sliding_window_pattern"] = draw(st.integers(1, 8))
    return config


@settings(max_examples=40)
@given(configs())
def test_parameters_and_buffers_are_those_of_transformers(config: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    shape = shape_from_config(config, "drawn")
    settings = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        real = transformers.AutoModelForCausalLM.from_config(settings)
    assert parameter_count(shape) == sum(weight.numel() for weight in real.parameters())
    first = [name for name, _ in real.named_parameters() if ".layers." not in name or ".layers.0." in name]
    assert [group.name.replace("*", "0") for group in model_parameters(shape)] == first
    held = {name: buffer.numel() * buffer.element_size() for name, buffer in real.named_buffers()}
    assert {entry.name: entry.nbytes for entry in buffers(shape, 4)} == held
    if shape.layer_types:
        assert list(shape.layer_types) == settings.layer_types


def test_gemma_2_runs_eager_attention_and_says_so(workload_of: Any) -> None:  # noqa: ANN401
    workload = workload_of(CONFIGS["gemma2"])
    assert attention_kernel(workload, None) == "eager"
    assert any("SDPA cannot cap scores" in note for note in check(workload))
    with pytest.raises(InputError, match="transformers runs gemma2 with eager attention only"):
        attention_kernel(workload_of(CONFIGS["gemma2"], attention="flash"), None)


def test_capped_scores_are_kept(workload_of: Any) -> None:  # noqa: ANN401
    """The tanh's result, beside what softmax keeps in fp32 and its copy for the product with values."""
    capped, plain = (
        {entry.name: entry.nbytes for entry in layer_ledger(workload_of(CONFIGS["gemma2"] | change), "eager")}
        for change in ({}, {"attn_logit_softcapping": None})
    )
    extra = {name: nbytes for name, nbytes in capped.items() if name not in plain}
    assert extra == {"self_attn.tanh of scores": 2 * 6 * 64 * 64}
