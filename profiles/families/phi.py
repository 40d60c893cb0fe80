"""Phi-1, Phi-1.5 and Phi-2: the keys of their `config.json` (transformers, configuration_phi.py)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from profiles.config_keys import ConfigKeys
from profiles.families.activations import read_activation
from profiles.families.rotary import rotary_dim
from profiles.shapes import ConfiguredShape


@dataclass(frozen=True, slots=True, kw_only=True)
class PhiShape(ConfiguredShape):
    """Attention and MLP beside each other behind one norm, every product with a bias."""

    rotary_dim: int
    """Elements of each head that positions turn."""
    embedding_dropout: float
    residual_dropout: float


def read(config: Mapping[str, Any], name: str) -> PhiShape:
    """The shape that PhiForCausalLM would have.

    Raises:
        UncoveredError: norms of queries and keys, or an activation that is not known.
        InputError: a value of the wrong type, or sizes that contradict each other.
    """
    keys = ConfigKeys(config, name)
    hidden, heads = keys.size("hidden_size", 2048), keys.size("num_attention_heads", 32)
    shared = keys.size("num_key_value_heads", absent=heads) if keys.has("num_key_value_heads") else heads
    if heads % shared:
        raise keys.contradiction("num_key_value_heads", f"{shared} does not divide num_attention_heads {heads}")
    head_dim = keys.size("head_dim", hidden // heads or None)
    if keys.flag("qk_layernorm", False):
        raise keys.uncovered("qk_layernorm", "is true")
    return PhiShape(
        name=name,
        model_type="phi",
        hidden_size=hidden,
        intermediate_size=keys.size("intermediate_size", 8192),
        num_hidden_layers=keys.size("num_hidden_layers", 24),
        num_attention_heads=heads,
        num_key_value_heads=shared,
        head_dim=head_dim,
        vocab_size=keys.size("vocab_size", 51200),
        max_position_embeddings=keys.size("max_position_embeddings", 2048),
        tie_word_embeddings=keys.flag("tie_word_embeddings", False),
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        attention_dropout=keys.fraction("attention_dropout"),
        hidden_act=read_activation(keys, "hidden_act", "gelu_new"),
        rotary_dim=rotary_dim(keys, head_dim, "partial_rotary_factor", 0.5),
        embedding_dropout=keys.fraction("embd_pdrop"),
        residual_dropout=keys.fraction("resid_pdrop"),
        config=json.dumps(config, sort_keys=True),
        head="causal-lm",
        attention_code="shared",
    )
