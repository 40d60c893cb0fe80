from typing import Any

import pytest

from profiles.configs import shape_from_config
from profiles.errors import InputError, UncoveredError


def test_missing_keys_mean_what_transformers_takes_them_for() -> None:
    shape = shape_from_config({"model_type": "olmo2"}, "m")
    assert (shape.hidden_size, shape.intermediate_size, shape.num_key_value_heads) == (4096, 11008, 32)
    assert (shape.vocab_size, shape.qk_norm, shape.qkv_bias, shape.tie_word_embeddings) == (50304, True, False, False)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"attention_bias": "yes"}, "attention_bias is"),
        ({"num_key_value_heads": 5}, "num_key_value_heads 5 does not divide num_attention_heads 32"),
    ],
)
def test_bad_values_are_one_line(config: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        shape_from_config({"model_type": "olmo2", **config}, "m")
    assert "\n" not in str(caught.value)


def test_other_activations_are_not_covered() -> None:
    with pytest.raises(UncoveredError, match="hidden_act is 'relu'"):
        shape_from_config({"model_type": "olmo2", "hidden_act": "relu"}, "m")
