from typing import Any

import pytest

from profiles.configs import shape_from_config
from profiles.errors import InputError, UncoveredError
from profiles.families.gemma import GemmaShape
from profiles.models import find_model
from profiles.shapes import FULL, SLIDING

SIZES = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "vocab_size": 256000,
}


def shape_of(family: str, **config: Any) -> GemmaShape:  # noqa: ANN401
    shape = shape_from_config({"model_type": family, **SIZES, **config}, "m")
    assert isinstance(shape, GemmaShape)
    return shape


@pytest.mark.parametrize(
    ("family", "config", "kv_heads", "positions"),
    [
        ("gemma", {"num_attention_heads": 16}, 16, 8192),
        ("gemma2", {}, 4, 8192),
        ("gemma3_text", {}, 4, 131072),
    ],
)
def test_missing_keys_mean_what_transformers_takes_them_for(
    family: str, config: dict[str, Any], kv_heads: int, positions: int
) -> None:
    shape = shape_of(family, **config)
    assert (shape.num_key_value_heads, shape.head_dim, shape.max_position_embeddings) == (kv_heads, 256, positions)
    assert (shape.tie_word_embeddings, shape.hidden_act) == (True, "gelu_pytorch_tanh")
    assert (shape.caps_scores, shape.caps_logits) == ((True, True) if family == "gemma2" else (False, False))


def test_gemma_3_leaves_out_heads_and_vocabulary() -> None:
    sizes = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34}
    shape = shape_from_config({"model_type": "gemma3_text", **sizes}, "m")
    assert (shape.num_attention_heads, shape.vocab_size) == (8, 262208)


@pytest.mark.parametrize(
    ("family", "config", "full"),
    [
        ("gemma2", {}, (1, 3, 5, 7)),
        ("gemma3_text", {}, (5,)),
        ("gemma3_text", {"sliding_window_pattern": 4}, (3, 7)),
        ("gemma2", {"layer_types": [FULL, *[SLIDING] * 7]}, (0,)),
    ],
)
def test_layers_of_either_kind(family: str, config: dict[str, Any], full: tuple[int, ...]) -> None:
    kinds = shape_of(family, **config).layer_types
    assert tuple(number for number, kind in enumerate(kinds) if kind == FULL) == full


def test_the_catalogue_has_windows_and_caps() -> None:
    small = find_model("gemma-3-1b").shape
    assert (small.sliding_window, small.layer_types.count(FULL), small.qk_norm) == (512, 4, True)
    assert find_model("gemma-2-2b").shape.caps_logits  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("family", "config", "said"),
    [
        ("gemma2", {"hidden_size": 100}, "hidden_size 100 is not a multiple of num_attention_heads 8"),
        ("gemma2", {"final_logit_softcapping": -1}, "final_logit_softcapping is -1"),
        ("gemma2", {"attn_logit_softcapping": True}, "attn_logit_softcapping is true"),
        ("gemma3_text", {"sliding_window": None}, "sliding_window is null"),
        ("gemma3_text", {"sliding_window_pattern": 0}, "sliding_window_pattern is 0"),
        ("gemma3_text", {"layer_types": [FULL]}, "layer_types has 1 entries for num_hidden_layers 8"),
        ("gemma", {"num_key_value_heads": None}, "num_key_value_heads is null"),
        ("gemma", {"num_key_value_heads": 3}, "num_key_value_heads 3 does not divide"),
    ],
)
def test_bad_values_are_one_line(family: str, config: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        shape_of(family, **config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"hidden_activation": "relu"}, "hidden_activation is 'relu'"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention is true"),
        ({"layer_types": ["linear_attention"] * 8}, "layer_types names 'linear_attention'"),
    ],
)
def test_variants_without_a_closed_form_are_named(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UncoveredError, match=said):
        shape_of("gemma3_text", **config)
