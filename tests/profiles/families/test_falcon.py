"""Falcon's `config.json`."""

from typing import Any

import pytest

from profiles.configs import shape_from_config
from profiles.errors import InputError, UncoveredError
from profiles.families.falcon import FalconShape
from profiles.models import find_model


def shape_of(**config: Any) -> FalconShape:  # noqa: ANN401
    shape = shape_from_config({"model_type": "falcon", **config}, "m")
    assert isinstance(shape, FalconShape)
    return shape


def test_missing_keys_mean_what_transformers_takes_them_for() -> None:
    shape = shape_of()
    assert (shape.hidden_size, shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim) == (
        4544,
        71,
        1,
        64,
    )
    assert (shape.intermediate_size, shape.norms, shape.repeats_heads) == (18176, 1, False)


def test_the_larger_models_repeat_keys_for_every_query_head() -> None:
    shape = shape_of(hidden_size=8192, num_attention_heads=128, num_kv_heads=8, new_decoder_architecture=True)
    assert (shape.groups, shape.num_key_value_heads, shape.norms, shape.repeats_heads) == (8, 128, 2, True)


def test_the_catalogues_model_is_planned() -> None:
    assert find_model("falcon-7b").shape.num_key_value_heads == 1


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"hidden_size": 4543}, "hidden_size 4543 makes no heads of an even size out of 71"),
        ({"new_decoder_architecture": True, "num_kv_heads": 3}, "num_kv_heads 3 does not divide"),
        ({"alibi": "no"}, "alibi is"),
        ({"hidden_dropout": 1.5}, "hidden_dropout is 1.5"),
    ],
)
def test_bad_values_are_one_line(config: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        shape_of(**config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"alibi": True},
        {"bias": True},
        {"parallel_attn": False},
        {"multi_query": False},
        {"num_ln_in_parallel_attn": 2},
        {"num_kv_heads": None, "new_decoder_architecture": True},
    ],
    ids=str,
)
def test_other_variants_are_not_covered(config: dict[str, Any]) -> None:
    with pytest.raises(UncoveredError, match=next(iter(config))):
        shape_of(**config)
