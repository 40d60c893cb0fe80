from typing import Any

import pytest

from profiles.configs import shape_from_config
from profiles.errors import InputError, UncoveredError
from profiles.families.phi3 import Phi3Shape
from profiles.models import find_model

SIZES = {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 32}


def shape_of(**config: Any) -> Phi3Shape:  # noqa: ANN401
    shape = shape_from_config({"model_type": "phi3", "vocab_size": 32064, **SIZES, **config}, "m")
    assert isinstance(shape, Phi3Shape)
    return shape


def test_missing_keys_mean_what_transformers_takes_them_for() -> None:
    shape = shape_of()
    assert (shape.hidden_size, shape.num_key_value_heads, shape.head_dim, shape.rotary_dim) == (3072, 32, 96, 96)
    assert (shape.max_position_embeddings, shape.sliding_window, shape.tie_word_embeddings) == (4096, None, False)


def test_phi_4_shares_keys_among_four_heads() -> None:
    shape = find_model("phi-4").shape
    assert (shape.num_attention_heads, shape.num_key_value_heads) == (40, 10)


@pytest.mark.parametrize(
    ("config", "turned"),
    [
        ({"partial_rotary_factor": 0.75}, 72),
        ({"rope_scaling": {"type": "longrope", "partial_rotary_factor": 0.5}}, 48),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}}, 24),
        ({"partial_rotary_factor": 0.33}, 32),
    ],
)
def test_a_part_of_each_head_is_turned(config: dict[str, Any], turned: int) -> None:
    assert shape_of(**config).rotary_dim == turned


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"hidden_size": "wide"}, 'hidden_size is "wide"'),
        ({"num_key_value_heads": 7}, "num_key_value_heads 7 does not divide num_attention_heads 32"),
        ({"hidden_size": 96}, "32 makes heads of 3 elements"),
        ({"head_dim": 5}, "head_dim 5 is odd"),
        ({"partial_rotary_factor": 2}, "partial_rotary_factor is 2"),
        ({"partial_rotary_factor": 0.001}, "leaves nothing of heads of 96"),
        ({"rope_scaling": {"type": "linear"}}, "has the type 'linear'"),
        ({"rope_scaling": 3}, "rope_scaling is 3"),
        ({"resid_pdrop": 1.5}, "resid_pdrop is 1.5"),
        ({"sliding_window": -1}, "sliding_window is -1"),
    ],
)
def test_bad_values_are_one_line(config: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        shape_of(**config)
    assert "\n" not in str(caught.value)


def test_other_activations_are_not_covered() -> None:
    with pytest.raises(UncoveredError, match="hidden_act is 'gelu_new'"):
        shape_of(hidden_act="gelu_new")
