"""Falcon: parameters against transformers, steps against their traces."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from estimators.workload import Workload
from tests.estimators.analytic.families.likeness import test_a_step_is_its_trace as test_a_step_is_its_trace
from tests.estimators.analytic.families.likeness import test_variants_are_their_traces as test_variants_are_their_traces

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

CONFIG: dict[str, Any] = {
    "model_type": "falcon",
    "hidden_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "vocab_size": 700,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
LARGER = {"new_decoder_architecture": True, "num_kv_heads": 2}
RUNS: tuple[dict[str, Any], ...] = (
    {"precision": "amp-bf16", "batch": 2},
    {"precision": "fp32", "padding": True, "batch": 2},
    {"grad_accumulation": 3, "keep_outputs": True, "use_cache": True},
    {"method": "lora", "rank": 4, "batch": 2, "loss": "chunked"},
    {"method": "low-rank", "rank": 4, "update": "per-layer"},
)
VARIANTS: tuple[dict[str, Any], ...] = (
    LARGER,
    {**LARGER, "num_ln_in_parallel_attn": 1, "hidden_dropout": 0.1, "num_hidden_layers": 1},
    {"ffn_hidden_size": 300, "tie_word_embeddings": False},
)


CONFIGS = st.builds(
    lambda groups, shared, width, more: (
        CONFIG
        | {
            "hidden_size": groups * shared * width,
            "num_attention_heads": groups * shared,
            "num_kv_heads": groups,
            **more,
        }
    ),
    st.integers(1, 3),
    st.integers(2, 4),
    st.integers(1, 5).map(lambda half: 2 * half),
    st.fixed_dictionaries(
        {
            "num_hidden_layers": st.integers(1, 5),
            "vocab_size": st.integers(2, 90),
            "tie_word_embeddings": st.booleans(),
            "new_decoder_architecture": st.booleans(),
        }
    ),
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(config=CONFIGS)
def test_parameters_are_those_of_transformers(
    config: dict[str, Any], assert_like_transformers: Callable[[dict[str, Any]], None]
) -> None:
    assert_like_transformers(config)


@pytest.mark.parametrize(("larger", "kernel"), [(False, "math"), (True, "efficient")])
def test_one_head_of_keys_leaves_no_fused_kernel(
    larger: bool, kernel: str, workload_of: Callable[..., Workload]
) -> None:
    from estimators.analytic.attention import attention_kernel

    assert attention_kernel(workload_of(CONFIG | (LARGER if larger else {})), None) == kernel


@pytest.mark.parametrize("attention", ["flash", "eager"])
def test_kernels_that_it_never_runs_are_refused(attention: str, workload_of: Callable[..., Workload]) -> None:
    from estimators.analytic.attention import attention_kernel
    from profiles.errors import InputError

    with pytest.raises(InputError, match="falcon"):
        attention_kernel(workload_of(CONFIG | LARGER, attention=attention), None)
