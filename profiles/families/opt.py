"""OPT: the keys of its `config.json` (transformers, configuration_opt.py)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from profiles.config_keys import ConfigKeys
from profiles.families.activations import read_activation
from profiles.shapes import ConfiguredShape

POSITION_OFFSET = 2
"""Rows of the table of positions that no position has (modeling_opt.py, `OPTLearnedPositionalEmbedding`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptShape(ConfiguredShape):
    """Learned positions, norms before or behind the blocks, and embeddings that may be narrower than the layers."""

    embedding_size: int
    """Width of the embedding and of what the head takes."""
    hidden_dropout: float
    norms_first: bool
    """LayerNorm before attention and MLP; opt-350m alone has it behind them."""
    last_norm: bool
    """A LayerNorm behind the last layer."""
    norm_weights: bool
    """LayerNorm has parameters."""


def read(config: Mapping[str, Any], name: str) -> OptShape:
    """The shape that OPTForCausalLM would have.

    Raises:
        UncoveredError: layers that are left out at random, or an activation that is not known.
        InputError: a value of the wrong type, or sizes that contradict each other.
    """
    keys = ConfigKeys(config, name)
    hidden, heads = keys.size("hidden_size", 768), keys.size("num_attention_heads", 12)
    if hidden % heads:
        raise keys.contradiction("hidden_size", f"{hidden} is not a multiple of num_attention_heads {heads}")
    if keys.fraction("layerdrop"):
        raise keys.uncovered("layerdrop", "leaves out layers at random")
    bias, first = keys.flag("enable_bias", True), keys.flag("do_layer_norm_before", True)
    return OptShape(
        name=name,
        model_type="opt",
        hidden_size=hidden,
        intermediate_size=keys.size("ffn_dim", 3072),
        num_hidden_layers=keys.size("num_hidden_layers", 12),
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        vocab_size=keys.size("vocab_size", 50272),
        max_position_embeddings=keys.size("max_position_embeddings", 2048),
        tie_word_embeddings=keys.flag("tie_word_embeddings", True),
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=bias,
        attention_dropout=keys.fraction("attention_dropout"),
        hidden_act=read_activation(keys, "activation_function", "relu"),
        embedding_size=keys.optional_size("word_embed_proj_dim", None) or hidden,
        hidden_dropout=keys.fraction("dropout", 0.1),
        norms_first=first,
        last_norm=first and not keys.flag("_remove_final_layer_norm", False),
        norm_weights=keys.flag("layer_norm_elementwise_affine", True),
        config=json.dumps(config, sort_keys=True),
        head="causal-lm",
        attention_code="shared",
    )
