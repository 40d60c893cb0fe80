"""Falcon: the keys of its `config.json` (transformers, configuration_falcon.py)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from profiles.config_keys import ConfigKeys
from profiles.families.activations import read_activation
from profiles.shapes import ConfiguredShape


@dataclass(frozen=True, slots=True, kw_only=True)
class FalconShape(ConfiguredShape):
    """Attention beside the MLP, queries that share keys and values, a mask in every step."""

    groups: int
    """Key and value heads in the weights; 1 where all queries share one."""
    repeats_heads: bool
    """Keys and values are copied for every query head (the larger models' architecture)."""
    norms: int
    """LayerNorms in a layer: one for both branches, or one for each."""
    hidden_dropout: float


def read(config: Mapping[str, Any], name: str) -> FalconShape:
    """The shape that FalconForCausalLM would have.

    Raises:
        UncoveredError: slopes instead of positions, biases, branches one after the other, as many keys as queries.
        InputError: a value of the wrong type, or sizes that contradict each other.
    """
    keys = ConfigKeys(config, name)
    hidden = keys.size("n_embed") if keys.has("n_embed") else keys.size("hidden_size", 4544)
    heads, new = keys.size("num_attention_heads", 71), keys.flag("new_decoder_architecture", False)
    if hidden % heads or hidden // heads % 2:
        raise keys.contradiction("hidden_size", f"{hidden} makes no heads of an even size out of {heads}")
    _refuse(keys, new=new)
    groups = (keys.optional_size("num_kv_heads", None) or heads) if new else 1
    if heads % groups:
        raise keys.contradiction("num_kv_heads", f"{groups} does not divide num_attention_heads {heads}")
    if new and groups == heads:
        raise keys.uncovered("num_kv_heads", "is as large as num_attention_heads")
    return FalconShape(
        name=name,
        model_type="falcon",
        hidden_size=hidden,
        intermediate_size=keys.optional_size("ffn_hidden_size", None) or 4 * hidden,
        num_hidden_layers=keys.size("num_hidden_layers", 32),
        num_attention_heads=heads,
        num_key_value_heads=heads if new else 1,
        head_dim=hidden // heads,
        vocab_size=keys.size("vocab_size", 65024),
        max_position_embeddings=keys.size("max_position_embeddings", 2048),
        tie_word_embeddings=keys.flag("tie_word_embeddings", True),
        attention_dropout=keys.fraction("attention_dropout"),
        hidden_act=read_activation(keys, "activation", "gelu"),
        groups=groups,
        repeats_heads=new,
        norms=keys.optional_size("num_ln_in_parallel_attn", None) or (2 if new else 1),
        hidden_dropout=keys.fraction("hidden_dropout"),
        always_masked=True,
        config=json.dumps(config, sort_keys=True),
        head="causal-lm",
        attention_code="sdpa",
    )


def _refuse(keys: ConfigKeys, *, new: bool) -> None:
    for key, default, wanted in (("alibi", False, False), ("bias", False, False), ("parallel_attn", True, True)):
        if keys.flag(key, default) is not wanted:
            raise keys.uncovered(key, f"is {str(not wanted).lower()}")
    if not new and not keys.flag("multi_query", True):
        raise keys.uncovered("multi_query", "is false")
    if not new and (keys.optional_size("num_ln_in_parallel_attn", None) or 1) != 1:
        raise keys.uncovered("num_ln_in_parallel_attn", "is not 1 without new_decoder_architecture")
