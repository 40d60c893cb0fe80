"""OLMo 2: parameters against transformers, and a step against its trace."""

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
    "model_type": "olmo2",
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
    {"checkpointing": "full", "precision": "amp-bf16"},
    {"attention": "efficient", "padding": True, "precision": "fp32", "batch": 2},
    {"attention": "math", "batch": 2, "precision": "fp32"},
    {"attention": "eager", "batch": 2, "dropout": 0.1},
    {"grad_accumulation": 3, "keep_outputs": True, "use_cache": True},
    {"method": "lora", "rank": 4, "loss": "chunked"},
    {"method": "low-rank", "rank": 4, "update": "per-layer"},
)
VARIANTS: dict[str, dict[str, Any]] = {
    "biases": {"attention_bias": True, "tie_word_embeddings": True},
    "wide heads": {"head_dim": 32, "num_key_value_heads": 6},
}


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    groups, shared = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    width = 2 * draw(st.integers(1, 16))
    config: dict[str, Any] = {
        "model_type": "olmo2",
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
    return config | {"attention_bias": draw(st.booleans())}


@settings(max_examples=25)
@given(configs())
def test_parameters_are_those_of_transformers(config: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    shape = shape_from_config(config, "drawn")
    with torch.device("meta"):
        real = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config))
    assert parameter_count(shape) == sum(weight.numel() for weight in real.parameters())
    first = [name for name, _ in real.named_parameters() if ".layers." not in name or ".layers.0." in name]
    assert [group.name.replace("*", "0") for group in model_parameters(shape)] == first


def test_norms_see_whole_projections_in_fp32(workload_of: Any) -> None:  # noqa: ANN401
    """The product with the norm's weight runs in fp32, so that its operand stays in fp32."""
    entries = {entry.name: entry for entry in layer_ledger(workload_of(CONFIG), "flash")}
    assert entries["self_attn.q_norm.normalised in fp32"].nbytes == 4 * 64 * 96
    assert entries["self_attn.k_norm.normalised in fp32"].nbytes == 4 * 64 * 32
