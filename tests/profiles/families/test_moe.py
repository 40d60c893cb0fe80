from typing import Any

import pytest

from profiles.configs import shape_from_config
from profiles.errors import InputError, UncoveredError
from profiles.families.moe import MoeShape


def shape_of(model_type: str = "qwen3_moe", **config: Any) -> MoeShape:  # noqa: ANN401
    shape = shape_from_config({"model_type": model_type, **config}, "m")
    assert isinstance(shape, MoeShape)
    return shape


def test_missing_keys_mean_what_transformers_takes_them_for() -> None:
    shape = shape_of("mixtral")
    assert (shape.num_experts, shape.experts_per_token, shape.expert_intermediate_size) == (8, 2, 14336)
    assert (shape.num_key_value_heads, shape.head_dim, shape.normalizes, shape.sliding_window) == (8, 128, True, None)
    shape = shape_of()
    assert (shape.num_experts, shape.experts_per_token, shape.expert_intermediate_size) == (128, 8, 768)
    assert (shape.num_key_value_heads, shape.head_dim, shape.normalizes, shape.sliding_window) == (4, 64, False, None)


def test_gpt_oss_slides_in_every_other_layer() -> None:
    shape = shape_of("gpt_oss", num_hidden_layers=3)
    assert shape.layer_types == ("sliding_attention", "full_attention", "sliding_attention")
    assert (shape.num_experts, shape.experts_per_token, shape.head_dim, shape.sliding_window) == (128, 4, 64, 128)
    assert (shape.qkv_bias, shape.output_bias, shape.attention_code) == (True, True, "eager")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"layer_types": ["full_attention"]}, "has 1 entries for num_hidden_layers 36"),
        ({"num_experts_per_tok": 200}, "200 are more than num_local_experts 128"),
        ({"intermediate_size": 100}, "no multiple of 8"),
        ({"output_router_logits": True}, "a loss on the router"),
    ],
)
def test_other_configs_of_gpt_oss_are_refused_in_one_line(config: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        shape_of("gpt_oss", **config)
    assert "\n" not in str(caught.value)


def test_both_names_of_the_number_of_experts_are_read() -> None:
    assert shape_of(num_local_experts=16).num_experts == 16
    assert shape_of("mixtral", num_experts=16).num_experts == 16


@pytest.mark.parametrize(
    ("config", "error", "said"),
    [
        ({"mlp_only_layers": [0]}, UncoveredError, "mlp_only_layers leaves layers without experts"),
        ({"decoder_sparse_step": 2}, UncoveredError, "decoder_sparse_step leaves layers without experts"),
        ({"output_router_logits": True}, UncoveredError, "a loss on the router"),
        ({"router_jitter_noise": 0.1}, UncoveredError, "disturbs the router's input"),
        ({"moe_intermediate_size": 100}, UncoveredError, "moe_intermediate_size 100 is no multiple of 8"),
        ({"num_experts_per_tok": 200}, InputError, "200 are more than num_experts 128"),
        ({"num_experts": 0}, InputError, "num_experts is 0"),
        ({"num_key_value_heads": 5}, InputError, "5 does not divide num_attention_heads 32"),
    ],
)
def test_other_configs_are_refused_in_one_line(config: dict[str, Any], error: type[InputError], said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        shape_of(**config)
    assert "\n" not in str(caught.value)
