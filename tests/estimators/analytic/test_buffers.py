from typing import Any

import pytest

from estimators.analytic.buffers import buffers
from profiles.configs import FAMILIES, shape_from_config

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 100,
    "max_position_embeddings": 64,
}
ROPES: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 2.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 2.0, "original_max_position_embeddings": 32},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "longrope": {
        "factor": 2.0,
        "original_max_position_embeddings": 32,
        "short_factor": [1.0] * 8,
        "long_factor": [2.0] * 8,
    },
}


@pytest.mark.parametrize("rope_type", ROPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_buffers_are_those_of_the_real_model(family: str, rope_type: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = {"model_type": family, **SMALL, "rope_parameters": {"rope_type": rope_type, **ROPES[rope_type]}}
    settings = transformers.AutoConfig.for_model(**config)
    model = transformers.AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16)
    tokens = torch.zeros(1, 80, dtype=torch.long)  # beyond max_position_embeddings: `dynamic` renews its frequencies
    model(input_ids=tokens)
    held = {name: (buffer.nbytes, buffer.dtype) for name, buffer in model.named_buffers()}
    expected = {entry.name: (entry.nbytes, torch.float32) for entry in buffers(shape_from_config(config, "small"))}
    assert held == expected
    assert {entry.category for entry in buffers(shape_from_config(config, "small"))} == {"buffers"}
