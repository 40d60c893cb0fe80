"""BLOOM: the keys of its `config.json` (transformers, configuration_bloom.py)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from profiles.config_keys import ConfigKeys
from profiles.shapes import ConfiguredShape

_ALIASES = {"n_layer": "num_hidden_layers", "n_head": "num_attention_heads", "hidden_size": "n_embed"}
"""What transformers takes under another name; the second one wins."""
TRAINED_LENGTH = 2048
"""Tokens that the published models saw; slopes instead of positions set no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BloomShape(ConfiguredShape):
    """Slopes instead of positions, a norm behind the embedding, attention by matrix products."""

    hidden_dropout: float
    normed_residual: bool
    """Residuals start behind the norms."""


def read(config: Mapping[str, Any], name: str) -> BloomShape:
    """The shape that BloomForCausalLM would have.

    Raises:
        UncoveredError: products in the slices that training ran them in.
        InputError: a value of the wrong type, or sizes that contradict each other.
    """
    config = {**config, **{key: config[alias] for key, alias in _ALIASES.items() if config.get(alias) is not None}}
    keys = ConfigKeys(config, name)
    hidden, heads = keys.size("hidden_size", 64), keys.size("n_head", 8)
    if hidden % heads:
        raise keys.contradiction("hidden_size", f"{hidden} is not a multiple of n_head {heads}")
    if keys.flag("slow_but_exact", False) and keys.size("pretraining_tp", 1) > 1:
        raise keys.uncovered("slow_but_exact", "is true, and pretraining_tp above 1")
    return BloomShape(
        name=name,
        model_type="bloom",
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=keys.size("n_layer", 2),
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        vocab_size=keys.size("vocab_size", 250880),
        max_position_embeddings=keys.size("seq_length", TRAINED_LENGTH),
        tie_word_embeddings=keys.flag("tie_word_embeddings", True),
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        attention_dropout=keys.fraction("attention_dropout"),
        hidden_act="gelu",
        hidden_dropout=keys.fraction("hidden_dropout"),
        normed_residual=keys.flag("apply_residual_connection_post_layernorm", False),
        config=json.dumps(config, sort_keys=True),
        head="causal-lm",
        attention_code="own",
    )
