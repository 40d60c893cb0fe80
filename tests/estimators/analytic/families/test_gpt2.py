"""GPT-2: parameters against transformers, steps against their traces."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from estimators.analytic.ledger import layer_ledger
from estimators.workload import Workload
from tests.estimators.analytic.families.likeness import test_a_step_is_its_trace as test_a_step_is_its_trace
from tests.estimators.analytic.families.likeness import test_variants_are_their_traces as test_variants_are_their_traces

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]

CONFIG: dict[str, Any] = {
    "model_type": "gpt2",
    "n_embd": 96,
    "n_layer": 4,
    "n_head": 6,
    "n_positions": 128,
    "n_inner": 200,
    "vocab_size": 700,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
RUNS: tuple[dict[str, Any], ...] = (
    {"precision": "amp-bf16", "checkpointing": "full"},
    {"precision": "fp32", "attention": "efficient", "padding": True, "batch": 2},
    {"attention": "math", "batch": 2},
    {"attention": "eager", "precision": "amp-bf16", "batch": 2},
    {"grad_accumulation": 3, "keep_outputs": True, "use_cache": True},
    {"method": "lora", "rank": 4, "checkpointing": "full", "loss": "chunked"},
    {"method": "low-rank", "rank": 4, "update": "per-layer"},
    {"method": "galore-adamw-8bit", "rank": 8, "update": "per-layer", "batch": 2},
)
VARIANTS: tuple[dict[str, Any], ...] = (
    {"embd_pdrop": 0.0, "activation_function": "relu", "tie_word_embeddings": False},
    {"resid_pdrop": 0.0, "attn_pdrop": 0.0, "activation_function": "gelu_fast"},
    {"activation_function": "gelu", "scale_attn_by_inverse_layer_idx": True, "n_layer": 2},
)


CONFIGS = st.builds(
    lambda heads, width, more: {"model_type": "gpt2", "n_embd": heads * width, "n_head": heads, **more},
    st.integers(1, 5),
    st.integers(1, 20),
    st.fixed_dictionaries(
        {
            "n_layer": st.integers(1, 5),
            "n_positions": st.integers(1, 70),
            "n_inner": st.sampled_from([None, 1, 40]),
            "vocab_size": st.integers(2, 90),
            "tie_word_embeddings": st.booleans(),
            "bos_token_id": st.just(0),
            "eos_token_id": st.just(1),
        }
    ),
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(config=CONFIGS)
def test_parameters_are_those_of_transformers(
    config: dict[str, Any], assert_like_transformers: Callable[[dict[str, Any]], None]
) -> None:
    assert_like_transformers(config)


def test_a_layer_keeps_every_tensor_of_a_written_out_gelu(workload_of: Callable[..., Workload]) -> None:
    kept = {entry.name: entry for entry in layer_ledger(workload_of(CONFIG), "flash")}
    wide = 2 * 64 * 200
    assert [kept[f"mlp.{name}"].nbytes for name in ("c_fc", "half of x", "tanh", "one and tanh", "activation")] == [
        wide
    ] * 5
    assert kept["attn.c_attn"].nbytes == 2 * 64 * 3 * 96
    assert kept["mlp.dropout mask"].nbytes == 64 * 96
