"""QLoRA: a step is its trace, in every family that transformers quantises."""

from typing import Any

import pytest

from tests.estimators.analytic.families.conftest import AlikeTrace, MakeWorkload

pytest.importorskip("bitsandbytes")
pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

DECODER: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 176,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 500,
    "pad_token_id": 0,
}
LLAMA = DECODER | {"model_type": "llama"}
FAMILIES: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": None},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 32},
    "gemma2": {"head_dim": 16},
    "gemma3_text": {"head_dim": 16},
    "phi3": {"eos_token_id": 1},
    "olmo2": {},
    "gpt_neox": {"num_key_value_heads": None},
    "opt": {"ffn_dim": 176, "word_embed_proj_dim": 96, "num_key_value_heads": None},
    "phi": {},
    "mixtral": {"num_local_experts": 4},
    "gpt_oss": {"num_local_experts": 4, "head_dim": 16},
}
RUNS: tuple[dict[str, Any], ...] = (
    {},
    {"precision": "amp-bf16", "batch": 2, "lora_dropout": 0.1},
    {"precision": "fp32", "padding": True, "attention": "efficient", "bnb_4bit_use_double_quant": True},
    {"checkpointing": "full", "bnb_4bit_use_double_quant": True, "batch": 2},
    {"precision": "amp-fp16", "checkpointing": "full", "bnb_4bit_use_double_quant": True, "grad_accumulation": 3},
    {"adapter_dtype": "bf16", "checkpointing": "full", "lora_dropout": 0.1},
    {"autocast": True, "checkpointing": "full", "batch": 2},
    {"attention": "eager", "target_modules": ("q_proj", "v_proj"), "checkpointing": "full"},
    {"attention": "math", "update": "per-layer", "loss": "chunked", "keep_outputs": True},
)


@pytest.mark.parametrize("words", RUNS, ids=lambda words: " ".join(words))
def test_a_step_is_its_trace(words: dict[str, Any], workload_of: MakeWorkload, assert_like_trace: AlikeTrace) -> None:
    assert_like_trace(workload_of(LLAMA, method="qlora", rank=4, **words))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_its_trace(family: str, workload_of: MakeWorkload, assert_like_trace: AlikeTrace) -> None:
    config = {key: value for key, value in (DECODER | FAMILIES[family]).items() if value is not None}
    run = {"precision": "amp-bf16", "batch": 2, "bnb_4bit_use_double_quant": True}
    assert_like_trace(workload_of(config | {"model_type": family}, method="qlora", rank=4, **run))


@pytest.mark.parametrize("words", [RUNS[3], {"autocast": True, "bnb_4bit_use_double_quant": True}])
def test_nothing_is_born_that_the_trace_has_not(words: dict[str, Any], workload_of: MakeWorkload) -> None:
    """Tensors of more than an allocator's block in a layer, one after another: copies and scales hide behind a peak."""
    from benchmarks.ledger_diff import compare, events

    found = list(events(compare(workload_of(LLAMA | {"num_hidden_layers": 3}, method="qlora", rank=4, **words))))
    births = [line for line in found if not line[1:].strip().startswith("-")]
    alone = [line for line in births if line[0] in "+-" and ("layers" in line or line[0] == "-")]
    assert len(births) > 100
    assert not alone
