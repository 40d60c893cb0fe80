"""GPT-OSS: the keys of its `config.json` (configuration_gpt_oss.py)."""

import json
from collections.abc import Mapping
from typing import Any

from profiles.config_keys import ConfigKeys
from profiles.families import decoders
from profiles.families.moe import GROUP_MULTIPLE, MoeShape
from profiles.shapes import FULL, SLIDING

_DEFAULTS = {
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_hidden_layers": 36,
    "num_attention_heads": 64,
    "vocab_size": 201088,
    "max_position_embeddings": 131072,
}


def read(config: Mapping[str, Any], name: str) -> MoeShape:
    """The shape that transformers would build, its experts in the dtype of training: MXFP4 cannot be trained.

    Raises:
        InputError: a value of the wrong type, or sizes that contradict each other.
        UncoveredError: a variant that no closed form covers.
    """
    keys = ConfigKeys(config, name)
    found = decoders.sizes(keys, _DEFAULTS, kv_heads=8, head_dim=64)
    key = next((key for key in ("num_experts", "num_local_experts") if keys.has(key)), "num_local_experts")
    experts, chosen = keys.size(key, 128), keys.size("num_experts_per_tok", 4)
    if chosen > experts:
        raise keys.contradiction("num_experts_per_tok", f"{chosen} are more than {key} {experts}")
    if keys.flag("output_router_logits", False):
        raise keys.uncovered("output_router_logits", "asks for a loss on the router")
    for key in ("hidden_size", "intermediate_size"):
        if found[key] % GROUP_MULTIPLE:
            why = f"{found[key]} is no multiple of {GROUP_MULTIPLE}, as grouped products of experts need"
            raise keys.uncovered(key, why)
    bias = keys.flag("attention_bias", True)
    layers = found["num_hidden_layers"]
    return MoeShape(
        name=name,
        model_type="gpt_oss",
        **found,
        tie_word_embeddings=keys.flag("tie_word_embeddings", False),
        qkv_bias=bias,
        output_bias=bias,
        attention_dropout=keys.fraction("attention_dropout"),
        sliding_window=keys.optional_size("sliding_window", 128),
        layer_types=decoders.layer_types(keys, layers, [FULL if number % 2 else SLIDING for number in range(layers)]),
        config=json.dumps(config, sort_keys=True),
        head="causal-lm",
        attention_code="eager",
        num_experts=experts,
        experts_per_token=chosen,
        expert_intermediate_size=found["intermediate_size"],
        normalizes=False,
    )
