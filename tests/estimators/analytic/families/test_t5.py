"""T5: parameters against transformers, a step against its trace, a layer against its hooks."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.analytic.ledger import layer_ledger
from estimators.analytic.parameters import model_parameters, parameter_count
from estimators.checks import check
from estimators.work import work_per_token
from estimators.workload import Workload
from profiles.configs import shape_from_config
from profiles.errors import InputError
from tests.estimators.analytic.families.likeness import test_a_step_is_its_trace as test_a_step_is_its_trace

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

MakeWorkload = Callable[..., Workload]
CONFIG: dict[str, Any] = {
    "model_type": "t5",
    "d_model": 96,
    "d_kv": 32,
    "d_ff": 200,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "vocab_size": 331,
}
RUNS: tuple[dict[str, Any], ...] = (
    {"batch": 2},
    {"seq": 70},
    {"precision": "amp-bf16", "padding": True, "batch": 2, "seq": 70},
    {"precision": "fp32", "attention": "math", "batch": 2},
    {"attention": "eager", "padding": True, "dropout": 0.2, "batch": 2},
    {"checkpointing": "full", "batch": 2},
    {"grad_accumulation": 3, "keep_outputs": True, "use_cache": True},
    {"method": "lora", "rank": 4, "checkpointing": "full"},
    {"method": "galore-adamw", "rank": 8, "update": "per-layer"},
)


def test_a_gated_step_is_its_trace(workload_of: MakeWorkload, assert_like_trace: Callable[[Workload], None]) -> None:
    gated = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_layers": 2, "num_decoder_layers": 5}
    assert_like_trace(workload_of(CONFIG | gated, batch=2))


@pytest.mark.parametrize("kernel", ["math", "eager"])
def test_an_encoder_layer_saves_what_hooks_see(
    kernel: str, workload_of: MakeWorkload, saved_by_hooks: Callable[[Workload, str], int]
) -> None:
    deep, shallow = (
        workload_of(CONFIG | {"dropout_rate": 0.0, "num_layers": layers}, precision="fp32", batch=2)
        for layers in (4, 3)
    )
    expected = saved_by_hooks(deep, kernel) - saved_by_hooks(shallow, kernel)
    assert sum(entry.exact_bytes for entry in layer_ledger(deep, kernel)) == expected


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "model_type": "t5",
        "d_model": draw(st.integers(1, 40)),
        "d_kv": draw(st.integers(1, 20)),
        "d_ff": draw(st.integers(1, 50)),
        "num_layers": draw(st.integers(1, 4)),
        "num_decoder_layers": draw(st.sampled_from([None, 1, 2, 5])),
        "num_heads": draw(st.integers(1, 4)),
        "relative_attention_num_buckets": draw(st.integers(2, 40)),
        "feed_forward_proj": draw(st.sampled_from(["relu", "gated-gelu", "gated-silu"])),
        "vocab_size": draw(st.integers(4, 90)),
        "tie_word_embeddings": draw(st.booleans()),
    }


@settings(max_examples=25)
@given(configs())
def test_parameters_are_those_of_transformers(config: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    shape = shape_from_config(config, "drawn")
    words = config | {"decoder_start_token_id": 0}
    with torch.device("meta"):
        real = transformers.AutoModelForSeq2SeqLM.from_config(transformers.AutoConfig.for_model(**words))
    assert parameter_count(shape) == sum(weight.numel() for weight in real.parameters())
    first = [name for name, _ in real.named_parameters() if ".block." not in name or ".block.0." in name]
    assert [group.name.replace("*", "0") for group in model_parameters(shape)] == first


def test_a_learned_bias_needs_a_mask(workload_of: MakeWorkload) -> None:
    from estimators.analytic.attention import attention_kernel

    assert attention_kernel(workload_of(CONFIG), None) == "efficient"
    with pytest.raises(InputError, match="no gradient for the learned bias"):
        attention_kernel(workload_of(CONFIG, attention="flash"), None)


def test_two_factors_cannot_stand_in_for_the_mlps_last_layer(workload_of: MakeWorkload) -> None:
    with pytest.raises(InputError, match="cannot replace wo") as caught:
        check(workload_of(CONFIG, method="low-rank", rank=4))
    assert "--target-modules q k v o wi" in str(caught.value)
    assert check(workload_of(CONFIG, method="low-rank", rank=4, target_modules=("q", "v"))) == ()


def test_the_decoder_looks_at_two_sequences(workload_of: MakeWorkload) -> None:
    """Two operations for each weight a token passes in both stacks and the head; scores of 3 + 2 * 2 attentions."""
    attention, mlp = 4 * 96 * 128, 2 * 96 * 200
    weights = 3 * (attention + mlp) + 2 * (2 * attention + mlp) + 331 * 96
    assert work_per_token(workload_of(CONFIG)).forward == 2 * weights + 7 * 4 * 64 * 128
