"""From a model's shape to the configuration of transformers' own model class."""

import json
from typing import Any

from estimators.workload import Workload
from galore_mem.errors import UsageError
from galore_mem.training.heads import attention_word, own_config
from profiles.shapes import ConfiguredShape, ModelShape

ATTENTION_DROPOUTS = ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob", "dropout_rate")
"""What families call the dropout on attention weights; each has one of them at most."""


def config_of(workload: Workload) -> Any:  # noqa: ANN401
    """The transformers configuration of a workload's model.

    Raises:
        UsageError: this transformers does not know the architecture, or refuses a value.
    """
    shape = workload.model
    if isinstance(shape, ConfiguredShape):
        config = own_config(json.loads(shape.config), shape.name)
        if shape.head == "classification":
            config.problem_type = "single_label_classification"  # else some look at the labels' values
        for key in ATTENTION_DROPOUTS if workload.dropout is not None else ():
            if hasattr(config, key):
                setattr(config, key, workload.dropout)
    else:
        config = _covered(workload, shape)
    code = shape.attention_code if isinstance(shape, ConfiguredShape) else "shared"
    config._attn_implementation = attention_word(code)
    config.use_cache = workload.use_cache
    return config


def _covered(workload: Workload, shape: ModelShape) -> Any:  # noqa: ANN401
    from transformers import AutoConfig

    words = _words(shape)
    if workload.dropout is not None:
        words["attention_dropout"] = workload.dropout
    try:
        return AutoConfig.for_model(shape.model_type, **words)
    except (ValueError, KeyError):
        import transformers

        raise UsageError(
            f"transformers {transformers.__version__} does not know the architecture {shape.model_type!r}",
            "",
            "run: pip install -U transformers",
        ) from None


def _words(shape: ModelShape) -> dict[str, Any]:
    words: dict[str, Any] = {
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "attention_dropout": shape.attention_dropout,
        "hidden_act": shape.hidden_act,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if shape.model_type in ("llama", "qwen3"):
        words["attention_bias"] = shape.qkv_bias
    if shape.model_type == "llama":
        words["mlp_bias"] = shape.mlp_bias
    if shape.model_type == "mistral":
        words["sliding_window"] = shape.sliding_window
    elif shape.sliding_window is not None:
        words |= {"use_sliding_window": True, "sliding_window": shape.sliding_window}
        words["layer_types"] = list(shape.layer_kinds)
    return words
