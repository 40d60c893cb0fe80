"""Phi-1 to Phi-2: parameters against transformers, steps against their traces."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.estimators.analytic.families.likeness import test_a_step_is_its_trace as test_a_step_is_its_trace
from tests.estimators.analytic.families.likeness import test_variants_are_their_traces as test_variants_are_their_traces

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

CONFIG: dict[str, Any] = {
    "model_type": "phi",
    "hidden_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "intermediate_size": 200,
    "vocab_size": 700,
    "max_position_embeddings": 128,
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
    {"partial_rotary_factor": 1.0, "num_key_value_heads": 2},
    {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attention_dropout": 0.1},
    {"hidden_act": "gelu", "tie_word_embeddings": True, "num_hidden_layers": 2},
)


CONFIGS = st.builds(
    lambda heads, width, more: CONFIG | {"hidden_size": heads * width, "num_attention_heads": heads, **more},
    st.integers(1, 5),
    st.integers(1, 5).map(lambda quarter: 8 * quarter),
    st.fixed_dictionaries(
        {
            "num_hidden_layers": st.integers(1, 5),
            "intermediate_size": st.integers(1, 50),
            "vocab_size": st.integers(2, 90),
            "partial_rotary_factor": st.sampled_from([0.25, 0.5, 1.0]),
            "num_key_value_heads": st.sampled_from([None, 1]),
            "tie_word_embeddings": st.booleans(),
        }
    ),
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(config=CONFIGS)
def test_parameters_are_those_of_transformers(
    config: dict[str, Any], assert_like_transformers: Callable[[dict[str, Any]], None]
) -> None:
    assert_like_transformers(config)
