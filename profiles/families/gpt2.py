"""GPT-2: learned positions, layers of LayerNorm and Conv1D, a tied head (transformers, configuration_gpt2.py)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from profiles.config_keys import ConfigKeys
from profiles.families.activations import read_activation
from profiles.shapes import ConfiguredShape

_ALIASES = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings",
}
"""What transformers takes under either name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpt2Shape(ConfiguredShape):
    """GPT-2 and what is built like it."""

    embedding_dropout: float
    residual_dropout: float


def read(config: Mapping[str, Any], name: str) -> Gpt2Shape:
    """The shape that GPT2LMHeadModel would have.

    Raises:
        UncoveredError: cross-attention, scores that are upcast, or an activation that is not known.
        InputError: a value of the wrong type, or sizes that contradict each other.
    """
    config = {**config, **{key: config[alias] for key, alias in _ALIASES.items() if alias in config}}
    keys = ConfigKeys(config, name)
    hidden, heads = keys.size("n_embd", 768), keys.size("n_head", 12)
    if hidden % heads:
        raise keys.contradiction("n_embd", f"{hidden} is not a multiple of n_head {heads}")
    if keys.flag("add_cross_attention", False):
        raise keys.uncovered("add_cross_attention", "is true")
    if keys.flag("reorder_and_upcast_attn", False):
        raise keys.uncovered("reorder_and_upcast_attn", "is true")
    return Gpt2Shape(
        name=name,
        model_type="gpt2",
        hidden_size=hidden,
        intermediate_size=keys.optional_size("n_inner", None) or 4 * hidden,
        num_hidden_layers=keys.size("n_layer", 12),
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        vocab_size=keys.size("vocab_size", 50257),
        max_position_embeddings=keys.size("n_positions", 1024),
        tie_word_embeddings=keys.flag("tie_word_embeddings", True),
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        attention_dropout=keys.fraction("attn_pdrop", 0.1),
        embedding_dropout=keys.fraction("embd_pdrop", 0.1),
        residual_dropout=keys.fraction("resid_pdrop", 0.1),
        hidden_act=read_activation(keys, "activation_function", "gelu_new"),
        config=json.dumps(config, sort_keys=True),
        head="causal-lm",
        attention_code="shared",
    )
