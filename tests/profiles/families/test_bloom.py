"""BLOOM's `config.json`."""

from typing import Any

import pytest

from profiles.configs import shape_from_config
from profiles.errors import InputError, UncoveredError
from profiles.families.bloom import BloomShape
from profiles.models import find_model


def shape_of(**config: Any) -> BloomShape:  # noqa: ANN401
    shape = shape_from_config({"model_type": "bloom", **config}, "m")
    assert isinstance(shape, BloomShape)
    return shape


def test_missing_keys_mean_what_transformers_takes_them_for() -> None:
    shape = shape_of()
    assert (shape.hidden_size, shape.intermediate_size, shape.num_hidden_layers, shape.head_dim) == (64, 256, 2, 8)
    assert (shape.hidden_dropout, shape.tie_word_embeddings, shape.vocab_size) == (0.0, True, 250880)


def test_keys_may_have_the_names_of_older_configs() -> None:
    shape = shape_of(n_embed=96, num_hidden_layers=3, num_attention_heads=4)
    assert (shape.hidden_size, shape.num_hidden_layers, shape.num_attention_heads) == (96, 3, 4)


def test_the_catalogues_models_are_planned() -> None:
    assert find_model("bloom-7b1").shape.hidden_size == 4096


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"hidden_size": 100}, "hidden_size 100 is not a multiple of n_head 8"),
        ({"n_layer": "many"}, "n_layer is"),
        ({"hidden_dropout": 1.5}, "hidden_dropout is 1.5"),
        ({"tie_word_embeddings": None}, "tie_word_embeddings is null"),
    ],
)
def test_bad_values_are_one_line(config: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        shape_of(**config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", [{"slow_but_exact": True, "pretraining_tp": 4}], ids=str)
def test_other_variants_are_not_covered(config: dict[str, Any]) -> None:
    with pytest.raises(UncoveredError, match=next(iter(config))):
        shape_of(**config)
