"""LLaMA's program against the trace: the family that all others are written after."""

from collections.abc import Callable
from typing import Any

from estimators.workload import Workload

CONFIG = {
    "model_type": "llama",
    "hidden_size": 96,
    "intermediate_size": 200,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "vocab_size": 331,
    "tie_word_embeddings": True,
}


def test_runs_of_a_small_model_are_like_their_traces(
    workload_of: Callable[..., Workload], assert_like_trace: Callable[[Workload], None], run: dict[str, Any]
) -> None:
    assert_like_trace(workload_of(CONFIG, **run))
