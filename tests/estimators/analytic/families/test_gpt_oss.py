"""GPT-OSS: parameters against transformers, a step against its trace."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.analytic.attention import attention_kernel
from estimators.analytic.parameters import model_parameters, parameter_count
from estimators.checks import check
from estimators.workload import Workload
from profiles.configs import shape_from_config
from profiles.errors import InputError
from tests.estimators.analytic.families.likeness import test_a_step_is_its_trace as test_a_step_is_its_trace

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

MakeWorkload = Callable[..., Workload]
CONFIG: dict[str, Any] = {
    "model_type": "gpt_oss",
    "hidden_size": 96,
    "intermediate_size": 104,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 331,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "sliding_window": 32,
}
RUNS: tuple[dict[str, Any], ...] = (
    {"batch": 2, "dropout": 0.1},
    {"precision": "amp-bf16", "padding": True},
    {"precision": "fp32", "loss": "chunked", "batch": 2},
    {"checkpointing": "full", "batch": 2},
    {"method": "lora", "rank": 4, "grad_accumulation": 2},
    {"method": "galore-adamw-8bit", "rank": 8, "update": "per-layer"},
)


def test_heads_of_their_own_and_a_cache_are_their_trace(
    workload_of: MakeWorkload, assert_like_trace: Callable[[Workload], None]
) -> None:
    change = {"num_key_value_heads": 6, "attention_bias": False, "num_hidden_layers": 2}
    assert_like_trace(workload_of(CONFIG | change, batch=2, use_cache=True, keep_outputs=True))


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    groups, shared, experts = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 6))
    return {
        "model_type": "gpt_oss",
        "hidden_size": 8 * draw(st.integers(1, 6)),
        "intermediate_size": 8 * draw(st.integers(1, 6)),
        "num_hidden_layers": draw(st.integers(1, 4)),
        "num_attention_heads": groups * shared,
        "num_key_value_heads": groups,
        "head_dim": 2 * draw(st.integers(1, 9)),
        "vocab_size": draw(st.integers(4, 90)),
        "num_local_experts": experts,
        "num_experts_per_tok": draw(st.integers(1, experts)),
        "attention_bias": draw(st.booleans()),
        "tie_word_embeddings": draw(st.booleans()),
    }


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


def test_sinks_leave_eager_attention_only(workload_of: MakeWorkload) -> None:
    assert attention_kernel(workload_of(CONFIG), None) == "eager"
    with pytest.raises(InputError, match="eager attention only"):
        attention_kernel(workload_of(CONFIG, attention="flash"), None)


def test_a_note_says_why_attention_is_eager(workload_of: MakeWorkload) -> None:
    assert any("SDPA has no sinks" in note for note in check(workload_of(CONFIG)))
