"""OPT's `config.json`."""

from typing import Any

import pytest

from profiles.configs import shape_from_config
from profiles.errors import InputError, UncoveredError
from profiles.families.opt import OptShape
from profiles.models import find_model


def shape_of(**config: Any) -> OptShape:  # noqa: ANN401
    shape = shape_from_config({"model_type": "opt", **config}, "m")
    assert isinstance(shape, OptShape)
    return shape


def test_missing_keys_mean_what_transformers_takes_them_for() -> None:
    shape = shape_of()
    assert (shape.hidden_size, shape.intermediate_size, shape.embedding_size, shape.hidden_act) == (
        768,
        3072,
        768,
        "relu",
    )
    assert (shape.hidden_dropout, shape.attention_dropout, shape.last_norm) == (0.1, 0.0, True)


def test_opt_350m_has_narrow_embeddings_and_its_norms_behind_the_blocks() -> None:
    shape = find_model("opt-350m").shape
    assert isinstance(shape, OptShape)
    assert (shape.embedding_size, shape.norms_first, shape.last_norm) == (512, False, False)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"hidden_size": 100}, "hidden_size 100 is not a multiple of num_attention_heads 12"),
        ({"word_embed_proj_dim": "narrow"}, "word_embed_proj_dim is"),
        ({"dropout": 1.5}, "dropout is 1.5"),
        ({"enable_bias": 1}, "enable_bias is 1"),
    ],
)
def test_bad_values_are_one_line(config: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        shape_of(**config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", [{"layerdrop": 0.1}, {"activation_function": "mish"}], ids=str)
def test_other_variants_are_not_covered(config: dict[str, Any]) -> None:
    with pytest.raises(UncoveredError, match=next(iter(config))):
        shape_of(**config)
