"""OPT: parameters against transformers, steps against their traces."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.estimators.analytic.families.likeness import test_a_step_is_its_trace as test_a_step_is_its_trace
from tests.estimators.analytic.families.likeness import test_variants_are_their_traces as test_variants_are_their_traces

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

CONFIG: dict[str, Any] = {
    "model_type": "opt",
    "hidden_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "ffn_dim": 200,
    "vocab_size": 700,
    "max_position_embeddings": 128,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
RUNS: tuple[dict[str, Any], ...] = (
    {"precision": "amp-bf16", "checkpointing": "full"},
    {"precision": "fp32", "attention": "efficient", "padding": True, "batch": 2},
    {"attention": "math", "batch": 2, "precision": "fp32", "dropout": 0.1},
    {"attention": "eager", "precision": "amp-bf16", "dropout": 0.1},
    {"grad_accumulation": 3, "keep_outputs": True, "use_cache": True},
    {"method": "lora", "rank": 4, "batch": 2, "loss": "chunked"},
    {"method": "low-rank", "rank": 4, "update": "per-layer"},
)
VARIANTS: tuple[dict[str, Any], ...] = (
    {"word_embed_proj_dim": 48, "do_layer_norm_before": False},
    {"layer_norm_elementwise_affine": False, "enable_bias": False, "tie_word_embeddings": False},
    {"activation_function": "gelu", "dropout": 0.0, "attention_dropout": 0.1, "num_hidden_layers": 1},
)


CONFIGS = st.builds(
    lambda heads, width, more: CONFIG | {"hidden_size": heads * width, "num_attention_heads": heads, **more},
    st.integers(1, 5),
    st.integers(1, 5).map(lambda quarter: 8 * quarter),
    st.fixed_dictionaries(
        {
            "num_hidden_layers": st.integers(1, 5),
            "ffn_dim": st.integers(1, 50),
            "vocab_size": st.integers(2, 90),
            "max_position_embeddings": st.integers(1, 40),
            "word_embed_proj_dim": st.sampled_from([None, 5, 8]),
            "tie_word_embeddings": st.booleans(),
            "do_layer_norm_before": st.booleans(),
            "enable_bias": st.booleans(),
            "layer_norm_elementwise_affine": st.booleans(),
        }
    ),
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(config=CONFIGS)
def test_parameters_are_those_of_transformers(
    config: dict[str, Any], assert_like_transformers: Callable[[dict[str, Any]], None]
) -> None:
    assert_like_transformers(config)
