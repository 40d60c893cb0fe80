"""BERT and RoBERTa as encoders, with the head that classifies sequences."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from profiles.config_keys import ConfigKeys
from profiles.shapes import ConfiguredShape

ACTIVATIONS = ("gelu", "gelu_pytorch_tanh", "silu", "swish")
"""Activations that run as one kernel and save their input only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BertShape(ConfiguredShape):
    """An encoder: attention and MLP, each followed by dropout, the sum with its input, and LayerNorm."""

    position_rows: int
    """Of the embedding of positions; RoBERTa leaves those up to the padding token's number to padding."""
    type_vocab_size: int
    """Kinds of segments, each with an embedding of its own."""
    hidden_dropout: float
    """Of embeddings, and of what attention and MLP add."""
    classifier_dropout: float
    num_labels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Defaults:
    """What the configuration classes assume for a missing key (configuration_bert.py, configuration_roberta.py)."""

    vocab_size: int
    pad_token_id: int


DEFAULTS = {
    "bert": _Defaults(vocab_size=30522, pad_token_id=0),
    "roberta": _Defaults(vocab_size=50265, pad_token_id=1),
}


def read(config: Mapping[str, Any], name: str) -> BertShape:
    """The shape that transformers' `...ForSequenceClassification` has under `config`.

    Raises:
        UncoveredError: a decoder, or another variant without a closed form.
        InputError: a value that makes no sense.
    """
    keys, model_type = ConfigKeys(config, name), config["model_type"]
    defaults = DEFAULTS[model_type]
    for key in ("is_decoder", "add_cross_attention"):
        if keys.flag(key, False):
            raise keys.uncovered(key, "asks for a decoder")
    named = config.get("architectures")
    if isinstance(named, list) and any(str(entry).endswith("ForCausalLM") for entry in named):
        raise keys.uncovered("architectures", "names a decoder")
    if keys.count("chunk_size_feed_forward", 0):
        raise keys.uncovered("chunk_size_feed_forward", "computes the MLP in pieces")
    activation = keys.text("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise keys.uncovered("hidden_act", f"is {activation[:40]!r}, which is none of {', '.join(ACTIVATIONS)}")
    hidden, heads = keys.size("hidden_size", 768), keys.size("num_attention_heads", 12)
    if hidden % heads:
        raise keys.contradiction("hidden_size", f"{hidden} is not a multiple of num_attention_heads {heads}")
    vocabulary = keys.size("vocab_size", defaults.vocab_size)
    padding = keys.count("pad_token_id", defaults.pad_token_id)
    rows = keys.size("max_position_embeddings", 512)
    positions = rows - padding - 1 if model_type == "roberta" else rows
    if padding >= vocabulary:
        raise keys.contradiction("pad_token_id", f"{padding} is none of vocab_size {vocabulary}")
    if positions < 1:
        raise keys.contradiction("max_position_embeddings", f"{rows} leaves none behind pad_token_id {padding}")
    dropout = keys.fraction("hidden_dropout_prob", 0.1)
    return BertShape(
        name=name,
        model_type=model_type,
        hidden_size=hidden,
        intermediate_size=keys.size("intermediate_size", 3072),
        num_hidden_layers=keys.size("num_hidden_layers", 12),
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        vocab_size=vocabulary,
        max_position_embeddings=positions,
        tie_word_embeddings=False,  # there is no head over the vocabulary
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        attention_dropout=keys.fraction("attention_probs_dropout_prob", 0.1),
        hidden_act=activation,
        config=json.dumps(config, sort_keys=True),
        head="classification",
        attention_code="shared",
        position_rows=rows,
        type_vocab_size=keys.size("type_vocab_size", 2),
        hidden_dropout=dropout,
        classifier_dropout=keys.fraction("classifier_dropout", dropout, absent=dropout),
        num_labels=_labels(keys, config),
    )


def _labels(keys: ConfigKeys, config: Mapping[str, Any]) -> int:
    """As many as `id2label` names, else `num_labels`, else two (configuration_utils.py)."""
    names = config.get("id2label")
    named = len(names) if isinstance(names, Mapping) else 2
    labels = keys.size("num_labels", named, absent=named)
    if isinstance(names, Mapping) and labels != named:
        raise keys.contradiction("num_labels", f"is {labels}, and id2label names {named}")
    if labels < 2:
        raise keys.uncovered("num_labels", "is 1: a regression")
    kind = config.get("problem_type") or "single_label_classification"
    if kind != "single_label_classification":
        raise keys.uncovered("problem_type", f"is {str(kind)[:40]}")
    return labels
