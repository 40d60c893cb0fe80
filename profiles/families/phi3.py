"""Phi-3 and Phi-4: the keys of their `config.json` (configuration_phi3.py)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from profiles.config_keys import ConfigKeys
from profiles.families import decoders
from profiles.shapes import ConfiguredShape

_DEFAULTS = {"max_position_embeddings": 4096}
_ROTARY_TYPES = ("default", "longrope", "su", "yarn")
"""The last two are older names of longrope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phi3Shape(ConfiguredShape):
    """LLaMA's layer with q, k and v from one product, gate and up from another, and dropout before each sum."""

    rotary_dim: int
    """Elements of each head that positions turn."""
    residual_dropout: float = 0.0


def read(config: Mapping[str, Any], name: str) -> Phi3Shape:
    """The shape that transformers would build.

    Raises:
        InputError: a value of the wrong type, or sizes that contradict each other.
        UncoveredError: a variant that no closed form covers.
    """
    keys = ConfigKeys(config, name)
    found = decoders.sizes(keys, _DEFAULTS)
    return Phi3Shape(
        name=name,
        model_type="phi3",
        **found,
        tie_word_embeddings=keys.flag("tie_word_embeddings", False),
        attention_dropout=keys.fraction("attention_dropout"),
        sliding_window=keys.optional_size("sliding_window", None),
        hidden_act=decoders.activation(keys),
        config=json.dumps(config, sort_keys=True),
        head="causal-lm",
        attention_code="shared",
        rotary_dim=_rotary_dim(keys, found["head_dim"]),
        residual_dropout=keys.fraction("resid_pdrop"),
    )


def _rotary_dim(keys: ConfigKeys, head_dim: int) -> int:
    """`partial_rotary_factor` of a head, rounded down to a number of elements and up to an even one."""
    key = "rope_scaling" if keys.has("rope_scaling") else "rope_parameters"
    rope = keys.within(key)
    kind = rope.text("rope_type", rope.text("type", "default"))
    if kind not in _ROTARY_TYPES:
        raise keys.contradiction(key, f"has the type {kind[:40]!r}, and phi3 knows default and longrope")
    share = rope.share("partial_rotary_factor", keys.share("partial_rotary_factor", 1.0))
    rotary_dim = int(head_dim * share)
    if not rotary_dim:
        raise keys.contradiction("partial_rotary_factor", f"{share} leaves nothing of heads of {head_dim}")
    return rotary_dim + rotary_dim % 2
