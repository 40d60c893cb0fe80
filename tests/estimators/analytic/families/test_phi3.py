"""Phi-3 and Phi-4: parameters against transformers, a step against its trace, a layer against its hooks."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.analytic.ledger import layer_ledger
from estimators.analytic.parameters import model_parameters, parameter_count
from profiles.configs import shape_from_config
from tests.estimators.analytic.families.likeness import test_a_step_is_its_trace as test_a_step_is_its_trace
from tests.estimators.analytic.families.likeness import test_variants_are_their_traces as test_variants_are_their_traces

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

CONFIG: dict[str, Any] = {
    "model_type": "phi3",
    "hidden_size": 96,
    "intermediate_size": 176,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 500,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
RUNS: tuple[dict[str, Any], ...] = (
    {"precision": "amp-bf16", "batch": 2},
    {"checkpointing": "full", "batch": 2},
    {"attention": "efficient", "padding": True, "precision": "fp32", "batch": 2},
    {"attention": "math", "batch": 2, "precision": "fp32"},
    {"attention": "eager", "batch": 2, "dropout": 0.1},
    {"grad_accumulation": 3, "keep_outputs": True, "use_cache": True},
    {"method": "lora", "rank": 4, "loss": "chunked"},
    {"method": "low-rank", "rank": 4, "update": "per-layer"},
)
VARIANTS: dict[str, dict[str, Any]] = {
    "part of each head turned": {"partial_rotary_factor": 0.75, "num_key_value_heads": 6},
    "residual dropout": {"resid_pdrop": 0.1, "tie_word_embeddings": True},
    "wide heads": {"head_dim": 32},
}


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    groups, shared = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    width = 2 * draw(st.integers(1, 16))
    config: dict[str, Any] = {
        "model_type": "phi3",
        "hidden_size": groups * shared * width,
        "intermediate_size": draw(st.integers(1, 50)),
        "num_hidden_layers": draw(st.integers(1, 5)),
        "num_attention_heads": groups * shared,
        "num_key_value_heads": draw(st.sampled_from([None, groups])),
        "vocab_size": draw(st.integers(4, 90)),
        "tie_word_embeddings": draw(st.booleans()),
        "pad_token_id": 0,
        "eos_token_id": 1,
    }
    if draw(st.booleans()):
        config["head_dim"] = 2 * draw(st.integers(1, 16))
    factor = draw(st.sampled_from([None, 0.5, 0.75, 1.0]))
    return config | ({"partial_rotary_factor": factor} if factor else {})


@settings(max_examples=25)
@given(configs())
def test_parameters_and_buffers_are_those_of_transformers(config: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    shape = shape_from_config(config, "drawn")
    with torch.device("meta"):
        real = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
    assert parameter_count(shape) == sum(weight.numel() for weight in real.parameters())
    turned = dict(real.named_buffers())["model.rotary_emb.inv_freq"].numel()
    assert turned * 2 == shape.rotary_dim  # type: ignore[attr-defined]
    first = [name for name, _ in real.named_parameters() if ".layers." not in name or ".layers.0." in name]
    assert [group.name.replace("*", "0") for group in model_parameters(shape)] == first


def test_a_layer_keeps_one_product_of_queries_keys_and_values(workload_of: Any) -> None:  # noqa: ANN401
    """Values are a view of the fused product, so that all of it stays; gate and up likewise."""
    entries = {entry.name: entry for entry in layer_ledger(workload_of(CONFIG), "flash")}
    tokens, joined = 64, (6 + 2 * 2) * 16
    assert entries["self_attn.qkv_proj"].nbytes == 2 * tokens * joined
    assert entries["mlp.gate_up_proj"].nbytes == 2 * tokens * 2 * 176
    assert "self_attn.q cos" not in entries
