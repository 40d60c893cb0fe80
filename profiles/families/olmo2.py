"""OLMo 2: the keys of its `config.json` (configuration_olmo2.py)."""

import json
from collections.abc import Mapping
from typing import Any

from profiles.config_keys import ConfigKeys
from profiles.families import decoders
from profiles.shapes import ConfiguredShape

_DEFAULTS = {"max_position_embeddings": 2048}


def read(config: Mapping[str, Any], name: str) -> ConfiguredShape:
    """The shape that transformers would build.

    Raises:
        InputError: a value of the wrong type, or sizes that contradict each other.
        UncoveredError: a variant that no closed form covers.
    """
    keys = ConfigKeys(config, name)
    bias = keys.flag("attention_bias", False)
    return ConfiguredShape(
        name=name,
        model_type="olmo2",
        **decoders.sizes(keys, _DEFAULTS),
        tie_word_embeddings=keys.flag("tie_word_embeddings", False),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm=True,
        attention_dropout=keys.fraction("attention_dropout"),
        hidden_act=decoders.activation(keys),
        config=json.dumps(config, sort_keys=True),
        head="causal-lm",
        attention_code="shared",
    )
