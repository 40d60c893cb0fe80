"""GPT-2's `config.json`."""

from typing import Any

import pytest

from profiles.configs import shape_from_config
from profiles.errors import InputError, UncoveredError
from profiles.families.gpt2 import Gpt2Shape
from profiles.models import find_model


def shape_of(**config: Any) -> Gpt2Shape:  # noqa: ANN401
    shape = shape_from_config({"model_type": "gpt2", **config}, "m")
    assert isinstance(shape, Gpt2Shape)
    return shape


def test_missing_keys_mean_what_transformers_takes_them_for() -> None:
    shape = shape_of()
    assert (shape.hidden_size, shape.intermediate_size, shape.num_hidden_layers, shape.head_dim) == (768, 3072, 12, 64)
    assert (shape.embedding_dropout, shape.residual_dropout, shape.attention_dropout) == (0.1, 0.1, 0.1)
    assert (shape.hidden_act, shape.tie_word_embeddings) == ("gelu_new", True)


def test_keys_may_have_the_names_that_other_families_use() -> None:
    assert shape_of(hidden_size=96, num_attention_heads=3, num_hidden_layers=2, max_position_embeddings=7) == shape_of(
        n_embd=96, n_head=3, n_layer=2, n_positions=7, hidden_size=96, num_attention_heads=3, num_hidden_layers=2,
        max_position_embeddings=7,
    )  # fmt: skip


def test_the_catalogues_models_are_planned() -> None:
    assert find_model("gpt2-xl").shape.intermediate_size == 6400


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"n_embd": "wide"}, 'n_embd is "wide"'),
        ({"n_embd": 100}, "n_embd 100 is not a multiple of n_head 12"),
        ({"n_inner": 0}, "n_inner is 0"),
        ({"resid_pdrop": 1.5}, "resid_pdrop is 1.5"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1"),
        ({"activation_function": 3}, "activation_function is 3"),
    ],
)
def test_bad_values_are_one_line(config: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        shape_of(**config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [{"add_cross_attention": True}, {"reorder_and_upcast_attn": True}, {"activation_function": "mish"}],
    ids=str,
)
def test_other_variants_are_not_covered(config: dict[str, Any]) -> None:
    with pytest.raises(UncoveredError, match=next(iter(config))):
        shape_of(**config)
