"""Models that no closed form covers: whatever transformers can build can be traced, where its step needs no values."""

import json
from typing import TYPE_CHECKING, Any

from galore_mem.answers.names import NamedConfig, NamedModel, find_config, resolve_model
from galore_mem.errors import MissingExtraError
from profiles.errors import InputError, UncoveredError
from profiles.shapes import UncoveredShape

if TYPE_CHECKING:
    from galore_mem.training.heads import Head

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

    config = own_config(found.config, found.name)
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
    return shape, tuple(_notes(shape, head))


def _notes(shape: UncoveredShape, head: "Head") -> list[str]:
    notes = [f"no closed form covers {shape.model_type}: everything here is traced"]
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
