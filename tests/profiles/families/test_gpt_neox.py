"""GPT-NeoX's `config.json`."""

from typing import Any

import pytest

from profiles.configs import shape_from_config
from profiles.errors import InputError, UncoveredError
from profiles.families.gpt_neox import GptNeoxShape
from profiles.models import find_model


def shape_of(**config: Any) -> GptNeoxShape:  # noqa: ANN401
    shape = shape_from_config({"model_type": "gpt_neox", **config}, "m")
    assert isinstance(shape, GptNeoxShape)
    return shape


def test_missing_keys_mean_what_transformers_takes_them_for() -> None:
    shape = shape_of()
    assert (shape.hidden_size, shape.intermediate_size, shape.num_hidden_layers, shape.rotary_dim) == (
        6144,
        24576,
        44,
        24,
    )
    assert (shape.parallel, shape.tie_word_embeddings, shape.qkv_bias, shape.hidden_act) == (True, False, True, "gelu")


def test_pythia_is_planned() -> None:
    assert find_model("pythia-1b").shape.head_dim == 256


@pytest.mark.parametrize(
    ("config", "turned"),
    [
        ({"rotary_pct": 0.5}, 48),
        ({"rope_parameters": {"partial_rotary_factor": 1.0}, "rotary_pct": 0.5}, 96),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, 24),
    ],
)
def test_a_part_of_each_head_is_turned(config: dict[str, Any], turned: int) -> None:
    assert shape_of(**config).rotary_dim == turned


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"hidden_size": "wide"}, 'hidden_size is "wide"'),
        ({"hidden_size": 100}, "hidden_size 100 is not a multiple of num_attention_heads 64"),
        ({"rotary_pct": 0.001}, "leaves nothing of heads of 96"),
        ({"rotary_pct": 0.33}, "turns 31 of 96"),
        ({"rotary_pct": 2}, "rotary_pct is 2"),
        ({"hidden_dropout": -1}, "hidden_dropout is -1"),
        ({"use_parallel_residual": None}, "use_parallel_residual is null"),
    ],
)
def test_bad_values_are_one_line(config: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        shape_of(**config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", [{"hidden_act": "mish"}], ids=str)
def test_other_variants_are_not_covered(config: dict[str, Any]) -> None:
    with pytest.raises(UncoveredError, match=next(iter(config))):
        shape_of(**config)
