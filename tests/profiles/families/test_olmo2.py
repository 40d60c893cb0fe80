from typing import Any

import pytest

from profiles.configs import shape_from_config
from profiles.errors import InputError, UncoveredError

SIZES = {
    "model_type": "olmo2",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 100352,
}


def test_missing_keys_mean_what_transformers_takes_them_for() -> None:
    shape = shape_from_config(SIZES, "m")
    assert (shape.num_key_value_heads, shape.head_dim, shape.max_position_embeddings) == (32, 128, 2048)
    assert (shape.qk_norm, shape.qkv_bias, shape.tie_word_embeddings) == (True, False, False)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"hidden_size": None}, "hidden_size is null"),
        ({"attention_bias": "yes"}, "attention_bias is"),
        ({"num_key_value_heads": 5}, "num_key_value_heads 5 does not divide num_attention_heads 32"),
    ],
)
def test_bad_values_are_one_line(config: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        shape_from_config(SIZES | config, "m")
    assert "\n" not in str(caught.value)


def test_other_activations_are_not_covered() -> None:
    with pytest.raises(UncoveredError, match="hidden_act is 'relu'"):
        shape_from_config(SIZES | {"hidden_act": "relu"}, "m")
