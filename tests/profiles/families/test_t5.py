from typing import Any

import pytest

from profiles.configs import config_notes, shape_from_config
from profiles.errors import InputError, UncoveredError
from profiles.families.t5 import T5Shape


def shape_of(**config: Any) -> T5Shape:  # noqa: ANN401
    shape = shape_from_config({"model_type": "t5", **config}, "m")
    assert isinstance(shape, T5Shape)
    return shape


def test_missing_keys_mean_what_transformers_takes_them_for() -> None:
    shape = shape_of()
    assert (shape.hidden_size, shape.intermediate_size, shape.num_hidden_layers, shape.num_decoder_layers) == (
        (512, 2048, 6, 6)
    )
    assert (shape.num_attention_heads, shape.head_dim, shape.buckets, shape.dropout) == (8, 64, 32, 0.1)
    assert (shape.hidden_act, shape.gated, shape.scales_outputs) == ("relu", False, True)


def test_flan_and_version_1_1_have_a_gate_and_do_not_scale() -> None:
    shape = shape_of(feed_forward_proj="gated-gelu", tie_word_embeddings=False, num_layers=8)
    assert (shape.hidden_act, shape.gated, shape.scales_outputs) == ("gelu_new", True, False)
    assert shape.tie_word_embeddings, "transformers ties them whatever the key says"
    assert shape.num_decoder_layers == 8
    assert shape_of(feed_forward_proj="gated-silu").hidden_act == "silu"


def test_the_plan_is_for_the_class_that_generates() -> None:
    assert config_notes({"architectures": ["T5ForConditionalGeneration"]}, shape_of()) == ()
    (note,) = config_notes({"architectures": ["T5EncoderModel"]}, shape_of())
    assert note.endswith("the plan is for an encoder and a decoder with its output head.")


@pytest.mark.parametrize(
    ("config", "error", "said"),
    [
        ({"is_encoder_decoder": False}, UncoveredError, "one half of the model"),
        ({"feed_forward_proj": "gated-mish"}, UncoveredError, "'gated-mish'"),
        ({"feed_forward_proj": "thin-relu"}, InputError, "it should be an activation, or gated-"),
        ({"d_model": 0}, InputError, "d_model is 0"),
        ({"num_decoder_layers": "six"}, InputError, "a positive integer"),
        ({"dropout_rate": 2}, InputError, "a number from 0 to below 1"),
    ],
)
def test_other_configs_are_refused_in_one_line(config: dict[str, Any], error: type[InputError], said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        shape_of(**config)
    assert "\n" not in str(caught.value)
