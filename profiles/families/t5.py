"""T5: the keys of its `config.json` (configuration_t5.py)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from profiles.config_keys import ConfigKeys
from profiles.shapes import ConfiguredShape

ACTIVATIONS = ("relu", "gelu_new", "gelu", "silu", "swish")
MOST_POSITIONS = 1 << 30
"""Positions are relative: they have no end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class T5Shape(ConfiguredShape):
    """An encoder and a decoder that looks at it; layers and heads of both are alike."""

    num_decoder_layers: int
    buckets: int
    """Distances between tokens that have a bias of their own, for each head."""
    dropout: float
    gated: bool
    """The MLP has a gate (T5 1.1 and Flan)."""
    scales_outputs: bool


def read(config: Mapping[str, Any], name: str) -> T5Shape:
    """The shape that `T5ForConditionalGeneration` has under `config`.

    Raises:
        UncoveredError: an encoder or decoder alone, or an activation without a closed form.
        InputError: a value that makes no sense.
    """
    keys = ConfigKeys(config, name)
    if keys.flag("is_decoder", False) or not keys.flag("is_encoder_decoder", True):
        raise keys.uncovered("is_encoder_decoder", "asks for one half of the model")
    activation, gated = _projection(keys)
    layers, heads = keys.size("num_layers", 6), keys.size("num_heads", 8)
    rate = keys.fraction("dropout_rate", 0.1)
    return T5Shape(
        name=name,
        model_type="t5",
        hidden_size=keys.size("d_model", 512),
        intermediate_size=keys.size("d_ff", 2048),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=keys.size("d_kv", 64),
        vocab_size=keys.size("vocab_size", 32128),
        max_position_embeddings=MOST_POSITIONS,
        tie_word_embeddings=True,  # whatever the key says: it decides `scales_outputs` alone
        attention_dropout=rate,
        hidden_act=activation,
        config=json.dumps(config, sort_keys=True),
        head="seq2seq-lm",
        attention_code="biased",
        num_decoder_layers=keys.size("num_decoder_layers", layers, absent=layers),
        buckets=keys.size("relative_attention_num_buckets", 32),
        dropout=rate,
        gated=gated,
        scales_outputs=keys.flag("tie_word_embeddings", True),
    )


def _projection(keys: ConfigKeys) -> tuple[str, bool]:
    """`relu` or `gated-gelu`: the activation, and whether there is a gate."""
    named = keys.text("feed_forward_proj", "relu")
    kind, _, activation = named.rpartition("-")
    if kind not in ("", "gated"):
        raise keys.contradiction("feed_forward_proj", f"is {named[:40]!r}: it should be an activation, or gated-...")
    if named == "gated-gelu":
        activation = "gelu_new"
    if activation not in ACTIVATIONS:
        raise keys.uncovered("feed_forward_proj", f"is {named[:40]!r}, which is none of {', '.join(ACTIVATIONS)}")
    return activation, bool(kind)
