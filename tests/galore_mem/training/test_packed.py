"""Packed sequences hold what padded ones do: what docs/habits.md says of them, on the real model."""

from itertools import accumulate
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

TOKENS = 96
BLOCK_BYTES = 512
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": TOKENS,
}


def peak(live_bytes: Any, implementation: str, **inputs: Any) -> int:  # noqa: ANN401
    """The most that forward and backward hold besides the model."""
    config = transformers.LlamaConfig(**SIZES, attn_implementation=implementation)
    model = transformers.LlamaForCausalLM(config)
    with live_bytes(model=[*model.parameters(), *model.buffers()]) as live:
        ids = torch.zeros((1, TOKENS), dtype=torch.int64)
        model(input_ids=ids, labels=ids, use_cache=False, **inputs).loss.backward()
    return int(max(accumulate(change for _, change, category, _ in live.timeline() if category != "model")))


def test_a_packed_row_holds_a_mask_as_a_padded_one_does(live_bytes: Any) -> None:  # noqa: ANN401
    """Transformers sees positions that restart and makes the same mask that it makes for padding."""
    restarting = torch.cat([torch.arange(40), torch.arange(TOKENS - 40)])[None]
    padded = torch.ones((1, TOKENS), dtype=torch.int64)
    padded[:, -4:] = 0
    plain = peak(live_bytes, "sdpa")
    packed = peak(live_bytes, "sdpa", position_ids=restarting)
    masked = peak(live_bytes, "sdpa", attention_mask=padded)
    rows_of_ids = 4 * 2 * BLOCK_BYTES  # 768 bytes each
    assert abs(packed - masked) <= rows_of_ids
    assert packed >= plain + TOKENS * TOKENS, "one byte for each pair of tokens"


def test_positions_that_do_not_restart_cost_nothing(live_bytes: Any) -> None:  # noqa: ANN401
    plain = peak(live_bytes, "sdpa")
    placed = peak(live_bytes, "sdpa", position_ids=torch.arange(TOKENS)[None])
    assert abs(placed - plain) <= 2 * BLOCK_BYTES
