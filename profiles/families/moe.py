"""Mixtral and Qwen3-MoE: the keys of their `config.json` (configuration_mixtral.py, configuration_qwen3_moe.py)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from profiles.config_keys import ConfigKeys
from profiles.families import decoders
from profiles.shapes import ConfiguredShape

GROUP_MULTIPLE = 8
"""Grouped matrix products want rows of a multiple of 16 bytes (torch's `_grouped_mm`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeShape(ConfiguredShape):
    """LLaMA's layer with a router and experts in the place of the MLP; each token passes some of the experts."""

    num_experts: int
    experts_per_token: int
    expert_intermediate_size: int
    normalizes: bool
    """The chosen experts' probabilities are divided by their sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Defaults:
    """What a configuration class assumes for missing keys."""

    sizes: Mapping[str, int]
    experts_key: str
    experts: int
    experts_per_token: int
    kv_heads: int


_DEFAULTS = {
    "mixtral": _Defaults(
        sizes={
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "vocab_size": 32000,
            "max_position_embeddings": 131072,
        },
        experts_key="num_local_experts",
        experts=8,
        experts_per_token=2,
        kv_heads=8,
    ),
    "qwen3_moe": _Defaults(
        sizes={
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 24,
            "num_attention_heads": 32,
            "vocab_size": 151936,
            "max_position_embeddings": 32768,
        },
        experts_key="num_experts",
        experts=128,
        experts_per_token=8,
        kv_heads=4,
    ),
}


def read(config: Mapping[str, Any], name: str) -> MoeShape:
    """The shape that transformers would build.

    Raises:
        InputError: a value of the wrong type, or sizes that contradict each other.
        UncoveredError: a variant that no closed form covers.
    """
    keys, model_type = ConfigKeys(config, name), config["model_type"]
    defaults, is_qwen = _DEFAULTS[model_type], model_type == "qwen3_moe"
    found = decoders.sizes(keys, defaults.sizes, kv_heads=defaults.kv_heads)
    experts, chosen = _experts(keys, defaults)
    if keys.flag("output_router_logits", False):
        raise keys.uncovered("output_router_logits", "asks for a loss on the router")
    if keys.fraction("router_jitter_noise"):
        raise keys.uncovered("router_jitter_noise", "disturbs the router's input")
    if is_qwen and (config.get("mlp_only_layers") or keys.size("decoder_sparse_step", 1) > 1):
        key = "mlp_only_layers" if config.get("mlp_only_layers") else "decoder_sparse_step"
        raise keys.uncovered(key, "leaves layers without experts")
    bias = is_qwen and keys.flag("attention_bias", False)
    inner = keys.size("moe_intermediate_size", 768) if is_qwen else found["intermediate_size"]
    for key, size in (("hidden_size", found["hidden_size"]), ("moe_intermediate_size", inner)):
        if size % GROUP_MULTIPLE:
            key = key if is_qwen or key == "hidden_size" else "intermediate_size"
            raise keys.uncovered(key, f"{size} is no multiple of {GROUP_MULTIPLE}, as grouped products of experts need")
    return MoeShape(
        name=name,
        model_type=model_type,
        **found,
        tie_word_embeddings=keys.flag("tie_word_embeddings", False),
        qkv_bias=bias,
        output_bias=bias,
        qk_norm=is_qwen,
        attention_dropout=keys.fraction("attention_dropout"),
        sliding_window=_sliding_window(keys, is_qwen),
        hidden_act=decoders.activation(keys),
        config=json.dumps(config, sort_keys=True),
        head="causal-lm",
        attention_code="shared",
        num_experts=experts,
        experts_per_token=chosen,
        expert_intermediate_size=inner,
        normalizes=not is_qwen or keys.flag("norm_topk_prob", False),
    )


def _experts(keys: ConfigKeys, defaults: _Defaults) -> tuple[int, int]:
    """How many there are, and how many of them a token passes."""
    key = next((key for key in ("num_experts", "num_local_experts") if keys.has(key)), defaults.experts_key)
    experts = keys.size(key, defaults.experts)
    chosen = keys.size("num_experts_per_tok", defaults.experts_per_token)
    if chosen > experts:
        raise keys.contradiction("num_experts_per_tok", f"{chosen} are more than {key} {experts}")
    return experts, chosen


def _sliding_window(keys: ConfigKeys, is_qwen: bool) -> int | None:
    if is_qwen and not keys.flag("use_sliding_window", False):
        return None
    return keys.optional_size("sliding_window", 4096 if is_qwen else None)
