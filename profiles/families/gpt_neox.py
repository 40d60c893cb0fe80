"""GPT-NeoX and Pythia: the keys of their `config.json` (transformers, configuration_gpt_neox.py)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from profiles.config_keys import ConfigKeys
from profiles.families.activations import read_activation
from profiles.families.rotary import rotary_dim
from profiles.shapes import ConfiguredShape


@dataclass(frozen=True, slots=True, kw_only=True)
class GptNeoxShape(ConfiguredShape):
    """Attention and MLP side by side, or one after the other."""

    rotary_dim: int
    """Elements of each head that positions turn."""
    hidden_dropout: float
    parallel: bool
    """Attention and MLP start from the same hidden states, and one sum takes both in."""


def read(config: Mapping[str, Any], name: str) -> GptNeoxShape:
    """The shape that GPTNeoXForCausalLM would have.

    Raises:
        UncoveredError: an activation that is not known.
        InputError: a value of the wrong type, or sizes that contradict each other.
    """
    keys = ConfigKeys(config, name)
    hidden, heads = keys.size("hidden_size", 6144), keys.size("num_attention_heads", 64)
    if hidden % heads:
        raise keys.contradiction("hidden_size", f"{hidden} is not a multiple of num_attention_heads {heads}")
    bias = keys.flag("attention_bias", True)
    return GptNeoxShape(
        name=name,
        model_type="gpt_neox",
        hidden_size=hidden,
        intermediate_size=keys.size("intermediate_size", 24576),
        num_hidden_layers=keys.size("num_hidden_layers", 44),
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        vocab_size=keys.size("vocab_size", 50432),
        max_position_embeddings=keys.size("max_position_embeddings", 2048),
        tie_word_embeddings=keys.flag("tie_word_embeddings", False),
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=True,
        attention_dropout=keys.fraction("attention_dropout"),
        hidden_dropout=keys.fraction("hidden_dropout"),
        hidden_act=read_activation(keys, "hidden_act", "gelu"),
        rotary_dim=rotary_dim(keys, hidden // heads, "rotary_pct", 0.25),
        parallel=keys.flag("use_parallel_residual", True),
        config=json.dumps(config, sort_keys=True),
        head="causal-lm",
        attention_code="shared",
    )
