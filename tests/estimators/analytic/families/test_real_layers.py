"""The ledger of a layer against `saved_tensors_hooks` on the real model, run on CPU tensors in fp32."""

from collections.abc import Callable
from typing import Any

import pytest

from estimators.analytic.ledger import layer_ledger
from estimators.workload import Workload

NUMBERS_BYTES = 64
"""Of Python numbers as operands, which autograd keeps as tensors of 8 bytes on the host."""
SIZES: dict[str, Any] = {"vocab_size": 97, "bos_token_id": 0, "eos_token_id": 1}
HIDDEN = SIZES | {"hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 4}
GPT2 = SIZES | {"n_embd": 48, "n_head": 6, "n_layer": 4, "n_positions": 64, "n_inner": 100}
GPT2 |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
OPT = HIDDEN | {"ffn_dim": 100, "dropout": 0.0, "pad_token_id": 1, "max_position_embeddings": 64}
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "gpt2": ({"model_type": "gpt2", **GPT2}, "cpu"),
    "gpt2 eager": ({"model_type": "gpt2", **GPT2}, "eager"),
    "gpt2 gelu_fast": ({"model_type": "gpt2", **GPT2, "activation_function": "gelu_fast"}, "math"),
    "gpt_neox": ({"model_type": "gpt_neox", **HIDDEN, "intermediate_size": 100}, "cpu"),
    "gpt_neox eager": (
        {"model_type": "gpt_neox", **HIDDEN, "intermediate_size": 100, "use_parallel_residual": False},
        "eager",
    ),
    "opt": ({"model_type": "opt", **OPT}, "cpu"),
    "opt-350m": ({"model_type": "opt", **OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 24}, "math"),
    "phi": ({"model_type": "phi", **HIDDEN, "intermediate_size": 100}, "cpu"),
    "phi eager": ({"model_type": "phi", **HIDDEN, "intermediate_size": 100, "num_key_value_heads": 2}, "eager"),
    "bloom": ({"model_type": "bloom", **SIZES, "hidden_size": 48, "n_head": 6, "n_layer": 4}, "eager"),
    "falcon": ({"model_type": "falcon", **HIDDEN}, "math"),
    "falcon larger": ({"model_type": "falcon", **HIDDEN, "new_decoder_architecture": True, "num_kv_heads": 2}, "math"),
}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_a_layer_keeps_what_hooks_see(
    name: str, batch: int, workload_of: Callable[..., Workload], saved_by_hooks: Callable[[Workload, str], int]
) -> None:
    config, kernel = CASES[name]
    key = "n_layer" if "n_layer" in config else "num_hidden_layers"
    deep, shallow = (workload_of(config | {key: layers}, precision="fp32", batch=batch, seq=24) for layers in (4, 3))
    real = saved_by_hooks(deep, kernel) - saved_by_hooks(shallow, kernel)
    ledger = sum(entry.exact_bytes for entry in layer_ledger(deep, kernel))
    assert 0 <= real - ledger <= NUMBERS_BYTES
