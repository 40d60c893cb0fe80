"""Phi's `config.json`."""

from typing import Any

import pytest

from profiles.configs import shape_from_config
from profiles.errors import InputError, UncoveredError
from profiles.families.phi import PhiShape
from profiles.models import find_model


def shape_of(**config: Any) -> PhiShape:  # noqa: ANN401
    shape = shape_from_config({"model_type": "phi", **config}, "m")
    assert isinstance(shape, PhiShape)
    return shape


def test_missing_keys_mean_what_transformers_takes_them_for() -> None:
    shape = shape_of()
    assert (shape.hidden_size, shape.intermediate_size, shape.num_key_value_heads, shape.rotary_dim) == (
        2048,
        8192,
        32,
        32,
    )
    assert (shape.residual_dropout, shape.embedding_dropout, shape.hidden_act) == (0.0, 0.0, "gelu_new")


def test_phi_2_turns_two_fifths_of_each_head() -> None:
    shape = find_model("phi-2").shape
    assert isinstance(shape, PhiShape)
    assert (shape.head_dim, shape.rotary_dim) == (80, 32)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"hidden_size": None}, "hidden_size is null"),
        ({"num_key_value_heads": 5}, "num_key_value_heads 5 does not divide num_attention_heads 32"),
        ({"partial_rotary_factor": 0}, "partial_rotary_factor is 0"),
        ({"partial_rotary_factor": 0.05}, "turns 3 of 64"),
        ({"resid_pdrop": "high"}, "resid_pdrop is"),
    ],
)
def test_bad_values_are_one_line(config: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        shape_of(**config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", [{"qk_layernorm": True}, {"hidden_act": "mish"}], ids=str)
def test_other_variants_are_not_covered(config: dict[str, Any]) -> None:
    with pytest.raises(UncoveredError, match=next(iter(config))):
        shape_of(**config)
