"""Mixtral and Qwen3-MoE: parameters against transformers, a step against its trace.

Births and deaths against real CPU steps, for spread and for collapsed routing, are in test_shadow.py.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.analytic.parameters import model_parameters, parameter_count
from estimators.checks import check
from estimators.work import work_per_token
from estimators.workload import Workload
from profiles.configs import shape_from_config
from profiles.models import find_model

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

MakeWorkload = Callable[..., Workload]
MIXTRAL: dict[str, Any] = {
    "model_type": "mixtral",
    "hidden_size": 96,
    "intermediate_size": 104,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 331,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
}
QWEN: dict[str, Any] = MIXTRAL | {
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 72,
    "head_dim": 32,
    "norm_topk_prob": True,
    "attention_bias": True,
    "tie_word_embeddings": True,
}
RUNS: tuple[dict[str, Any], ...] = (
    {"batch": 2},
    {"precision": "amp-bf16", "attention": "eager", "padding": True},
    {"precision": "fp32", "loss": "chunked", "batch": 2},
    {"checkpointing": "full", "batch": 2},
    {"grad_accumulation": 3, "keep_outputs": True, "use_cache": True},
    {"method": "lora", "rank": 4},
    {"method": "galore-adamw-8bit", "rank": 8, "update": "per-layer"},
)


@pytest.mark.parametrize("way", RUNS, ids=str)
def test_a_mixtral_step_is_its_trace(
    way: dict[str, Any], workload_of: MakeWorkload, assert_like_trace: Callable[[Workload], None]
) -> None:
    assert_like_trace(workload_of(MIXTRAL, **way))


@pytest.mark.parametrize("way", RUNS[::3], ids=str)
def test_a_qwen_step_is_its_trace(
    way: dict[str, Any], workload_of: MakeWorkload, assert_like_trace: Callable[[Workload], None]
) -> None:
    assert_like_trace(workload_of(QWEN, **way))


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    groups, shared, experts = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 6))
    return {
        "model_type": draw(st.sampled_from(["mixtral", "qwen3_moe"])),
        "hidden_size": 8 * draw(st.integers(1, 6)),
        "intermediate_size": 8 * draw(st.integers(1, 6)),
        "moe_intermediate_size": 8 * draw(st.integers(1, 6)),
        "num_hidden_layers": draw(st.integers(1, 4)),
        "num_attention_heads": groups * shared,
        "num_key_value_heads": groups,
        "head_dim": 2 * draw(st.integers(1, 9)),
        "vocab_size": draw(st.integers(4, 90)),
        "num_experts": experts,
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


def test_a_token_passes_two_of_eight_experts() -> None:
    """Mistral AI counts 12.9 billion active parameters in Mixtral 8x7B, embeddings included (arXiv 2401.04088)."""
    work = work_per_token(Workload(model=find_model("mixtral-8x7b").shape))
    scores = 4 * 32 * 256 * 32 * 128
    assert (work.forward - scores) / 2 + 32000 * 4096 == pytest.approx(12.9e9, rel=0.002)


@pytest.mark.parametrize(
    ("method", "said"), [("galore-adamw", "projects none"), ("lora", "adapts none"), ("low-rank", "none of them is")]
)
def test_what_methods_do_not_reach_is_said(method: str, said: str, workload_of: MakeWorkload) -> None:
    routing, experts = check(workload_of(MIXTRAL, method=method, rank=4))
    assert "whichever experts tokens choose" in routing
    assert said in experts
