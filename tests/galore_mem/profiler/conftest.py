"""Small models of every family, and workloads of them."""

from collections.abc import Callable
from typing import Any

import pytest

from estimators.workload import Workload
from galore_mem.answers.settings import Settings, workloads
from profiles.shapes import ModelShape

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "tied": {"tie_word_embeddings": True},
    "qwen2": {"model_type": "qwen2", "qkv_bias": True},
    "qwen3": {"model_type": "qwen3", "qk_norm": True},
}


@pytest.fixture
def small() -> Callable[..., Workload]:
    """A workload of two layers of a few thousand parameters."""

    def make(method: str, *, family: str = "llama", layers: int = 2, **settings: Any) -> Workload:  # noqa: ANN401
        shape: dict[str, Any] = {"model_type": "llama", **FAMILIES[family]}
        model = ModelShape(
            name="small",
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            vocab_size=500,
            max_position_embeddings=128,
            **shape,
        )
        rank = {} if method.startswith(("adam", "ada", "sgd", "paged", "offload")) else {"rank": 16}
        (workload,) = workloads(model, (method,), Settings(**{"seq": 64, **rank, **settings}))
        return workload

    return make
