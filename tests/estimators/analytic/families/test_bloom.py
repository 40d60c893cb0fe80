"""BLOOM: parameters against transformers, steps against their traces."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.estimators.analytic.families.likeness import test_a_step_is_its_trace as test_a_step_is_its_trace
from tests.estimators.analytic.families.likeness import test_variants_are_their_traces as test_variants_are_their_traces

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

CONFIG: dict[str, Any] = {
    "model_type": "bloom",
    "hidden_size": 96,
    "n_layer": 4,
    "n_head": 6,
    "vocab_size": 700,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
RUNS: tuple[dict[str, Any], ...] = (
    {"precision": "amp-bf16", "checkpointing": "full"},
    {"precision": "fp32", "padding": True, "batch": 2},
    {"grad_accumulation": 3, "keep_outputs": True, "use_cache": True, "dropout": 0.1},
    {"method": "lora", "rank": 4, "batch": 2, "loss": "chunked", "checkpointing": "full"},
    {"method": "low-rank", "rank": 4, "update": "per-layer"},
)
VARIANTS: tuple[dict[str, Any], ...] = (
    {"hidden_dropout": 0.1, "attention_dropout": 0.1, "apply_residual_connection_post_layernorm": True},
    {"tie_word_embeddings": False, "n_layer": 1},
)


CONFIGS = st.builds(
    lambda heads, width, more: CONFIG | {"hidden_size": heads * width, "n_head": heads, **more},
    st.integers(1, 5),
    st.integers(1, 20),
    st.fixed_dictionaries(
        {"n_layer": st.integers(1, 5), "vocab_size": st.integers(2, 90), "tie_word_embeddings": st.booleans()}
    ),
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(config=CONFIGS)
def test_parameters_are_those_of_transformers(
    config: dict[str, Any], assert_like_transformers: Callable[[dict[str, Any]], None]
) -> None:
    assert_like_transformers(config)
