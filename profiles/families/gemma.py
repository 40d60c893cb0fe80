"""Gemma, Gemma 2 and the text models of Gemma 3: the keys of their `config.json` (configuration_gemma*.py)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from profiles.config_keys import ConfigKeys
from profiles.families import decoders
from profiles.shapes import FULL, SLIDING, ConfiguredShape

_DEFAULTS: dict[str, dict[str, int]] = {
    "gemma": {"max_position_embeddings": 8192},
    "gemma2": {"max_position_embeddings": 8192},
    "gemma3_text": {"max_position_embeddings": 131072, "num_attention_heads": 8, "vocab_size": 262208},
}
"""Gemma 3's own configurations leave out what is its class's default."""
_KV_HEADS = {"gemma": 16, "gemma2": 4, "gemma3_text": 4}
_HEAD_DIM = 256
_WINDOW = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmaShape(ConfiguredShape):
    """A gated MLP and grouped-query attention between norms in fp32; Gemma 2 and 3 have norms behind both as well."""

    caps_scores: bool = False
    """Attention scores pass through a scaled tanh (Gemma 2), which transformers computes in eager attention only."""
    caps_logits: bool = False
    """Logits do."""


def read(config: Mapping[str, Any], name: str) -> GemmaShape:
    """The shape that transformers would build.

    Raises:
        InputError: a value of the wrong type, or sizes that contradict each other.
        UncoveredError: a variant that no closed form covers.
    """
    keys = ConfigKeys(config, name)
    family = keys.text("model_type", "")
    if keys.has("use_bidirectional_attention") and keys.flag("use_bidirectional_attention", False):
        raise keys.uncovered("use_bidirectional_attention", "is true, which makes masks of its own")
    found = decoders.sizes(
        keys,
        _DEFAULTS[family],
        kv_heads=_KV_HEADS[family],
        head_dim=_HEAD_DIM,
        divides_hidden=family != "gemma",
    )
    bias = keys.flag("attention_bias", False)
    slides = family != "gemma"
    return GemmaShape(
        name=name,
        model_type=family,
        **found,
        tie_word_embeddings=keys.flag("tie_word_embeddings", True),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm=family == "gemma3_text",
        attention_dropout=keys.fraction("attention_dropout"),
        sliding_window=_window(keys) if slides else None,
        layer_types=_layer_types(keys, family, found["num_hidden_layers"]) if slides else (),
        hidden_act=decoders.activation(keys, "hidden_activation" if slides else "hidden_act", "gelu_pytorch_tanh"),
        config=json.dumps(config, sort_keys=True),
        head="causal-lm",
        attention_code="eager" if family == "gemma2" else "shared",
        caps_scores=family == "gemma2" and keys.optional_number("attn_logit_softcapping", 50.0) is not None,
        caps_logits=slides
        and keys.optional_number("final_logit_softcapping", 30.0 if family == "gemma2" else None) is not None,
    )


def _window(keys: ConfigKeys) -> int:
    window = keys.optional_size("sliding_window", _WINDOW)
    if window is None:
        raise keys.contradiction("sliding_window", "is null, and transformers makes a mask for it in any case")
    return window


def _layer_types(keys: ConfigKeys, family: str, layers: int) -> tuple[str, ...]:
    """Every second layer sees all tokens in Gemma 2, every sixth in Gemma 3 unless the config says otherwise."""
    period = 2 if family == "gemma2" else keys.size("sliding_window_pattern", 6)
    return decoders.layer_types(keys, layers, [SLIDING if number % period else FULL for number in range(1, layers + 1)])
