"""From a model's shape to the configuration of transformers' own model class."""

from typing import Any

from estimators.workload import Workload
from galore_mem.errors import UsageError
from profiles.shapes import ModelShape

ATTENTION_KEY = "galore_mem"
"""Under which our attention and mask functions are registered; transformers looks for a kernel on the Hub where the
name contains `flash`."""


def config_of(workload: Workload, attention: str) -> Any:  # noqa: ANN401
    """The transformers configuration of a workload's model.

    Args:
        workload: the run.
        attention: `_attn_implementation`.

    Raises:
        UsageError: this transformers does not know the architecture.
    """
    from transformers import AutoConfig

    shape = workload.model
    words = _words(shape)
    if workload.dropout is not None:
        words["attention_dropout"] = workload.dropout
    try:
        config = AutoConfig.for_model(shape.model_type, **words)
    except (ValueError, KeyError):
        import transformers

        raise UsageError(
            f"transformers {transformers.__version__} does not know the architecture {shape.model_type!r}",
            "",
            "run: pip install -U transformers",
        ) from None
    config._attn_implementation = attention
    config.use_cache = workload.use_cache
    return config


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
        words |= {"use_sliding_window": True, "sliding_window": shape.sliding_window, "max_window_layers": 0}
    return words
