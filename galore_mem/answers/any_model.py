"""Models that no closed form covers: whatever transformers can build can be traced, where its step needs no values."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from galore_mem.answers.names import NamedConfig, NamedModel, find_config, resolve_model
from galore_mem.errors import MissingExtraError
from profiles.configs import WITHOUT_ATTENTION
from profiles.errors import InputError, UncoveredError
from profiles.shapes import UncoveredShape

if TYPE_CHECKING:
    from galore_mem.training.heads import Head

RECURRENT = ("mamba_", "ssm_", "linear_key_head", "linear_num_key_heads", "time_step_rank")
"""How keys begin that tell of state-space layers or of linear attention beside layers that attend."""
MOST_POSITIONS = 1 << 30
"""Of models whose positions have no end."""


def traced_model(name: str) -> NamedModel:
    """The model that `name` means, be there a closed form for it or not.

    Raises:
        InputError: no such model or file, or a config that makes no sense.
        UsageError: this transformers does not know its architecture, or it is none that can be traced.
    """
    try:
        return resolve_model(name)
    except UncoveredError:
        found = find_config(name)
        try:
            return found.with_shape(*_shape(found))
        except ModuleNotFoundError as error:
            missing = (error.name or "transformers").partition(".")[0]
            raise MissingExtraError("a trace", "train", missing) from None


def _shape(found: NamedConfig) -> tuple[UncoveredShape, tuple[str, ...]]:
    from galore_mem.training.heads import head_of, own_config

    if found.config.get("model_type") in WITHOUT_ATTENTION:
        raise _without_attention(found.config["model_type"], found.name)
    config = own_config(found.config, found.name)
    if getattr(config, "num_attention_heads", None) is None and "num_attention_heads" not in found.config:
        raise _without_attention(config.model_type, found.name)
    head = head_of(config, found.config.get("architectures"), found.name)
    hidden, heads = _size(config, "hidden_size", found.name), _size(config, "num_attention_heads", found.name)
    shape = UncoveredShape(
        name=found.name,
        model_type=config.model_type,
        hidden_size=hidden,
        intermediate_size=getattr(config, "intermediate_size", None) or 4 * hidden,
        num_hidden_layers=_size(config, "num_hidden_layers", found.name),
        num_attention_heads=heads,
        num_key_value_heads=_key_value_heads(config, heads),
        head_dim=getattr(config, "head_dim", None) or hidden // heads,
        vocab_size=_size(config, "vocab_size", found.name),
        max_position_embeddings=getattr(config, "max_position_embeddings", None) or MOST_POSITIONS,
        tie_word_embeddings=bool(getattr(config, "tie_word_embeddings", False)),
        attention_dropout=_attention_dropout(config),
        config=json.dumps(found.config, sort_keys=True),
        head=head.name,
        attention_code=head.attention_code,
    )
    return shape, tuple(_notes(shape, head, found.config))


def _without_attention(model_type: str, name: str) -> InputError:
    return InputError(
        f"{name}: {model_type} models have no attention, and are not traced",
        "on a GPU their layers run kernels of their own, which fake tensors do not reach",
        "record steps of yours on a GPU instead: with galore_mem.profile() as p: ...",
    )


def _notes(shape: UncoveredShape, head: "Head", config: Mapping[str, Any]) -> list[str]:
    notes = [f"no closed form covers {shape.model_type}: everything here is traced"]
    if any(key.startswith(RECURRENT) for key in config):
        notes.append(
            f"the recurrent layers of {shape.model_type} run transformers' plain code, as where no kernels for them "
            "(mamba-ssm, flash-linear-attention) are installed: with those a step keeps other tensors"
        )
    if shape.head == "classification":
        notes.append(f"{head.class_name} is traced: one of two labels for each sequence")
    if shape.head == "seq2seq-lm":
        notes.append(f"{head.class_name} is traced: targets as long as inputs")
    return notes


def _size(config: Any, key: str, name: str) -> int:  # noqa: ANN401
    value = getattr(config, key, None)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(
            f"{name}: {key} is {value!r}", "it should be a positive integer", f"correct {key} in the config"
        )
    return value


def _key_value_heads(config: Any, heads: int) -> int:  # noqa: ANN401
    if getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False):
        return 1  # Falcon's name for it
    return getattr(config, "num_key_value_heads", None) or heads


def _attention_dropout(config: Any) -> float:  # noqa: ANN401
    from galore_mem.training.config import ATTENTION_DROPOUTS

    for key in ATTENTION_DROPOUTS:
        value = getattr(config, key, None)
        if value:
            return float(value)
    return 0.0
