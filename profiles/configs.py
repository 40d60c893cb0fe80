"""A model's shape from its `config.json`, under the rules of transformers 5.23's own configuration classes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiles.errors import InputError
from profiles.shapes import ModelShape

MAX_CONFIG_BYTES = 10 * 2**20
_LARGEST = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """Where the members of the LLaMA family differ, and what they assume for a missing key."""

    num_key_value_heads: int | None
    """Used when the key is missing; None means as many as query heads, which `null` means in every family."""
    head_dim: int | None
    """Used when the key is missing; None means `hidden_size // num_attention_heads`."""
    max_position_embeddings: int
    attention_bias: bool | None
    """Whether `attention_bias` is honoured (its default), on q, k, v and o; None where the code ignores the key."""
    qkv_bias: bool = False
    """Biases on q, k and v are built in."""
    mlp_bias: bool = False
    """Whether `mlp_bias` is honoured."""
    qk_norm: bool = False
    divides_hidden: bool = False
    """The family refuses heads that do not divide `hidden_size`, even where `head_dim` is given."""
    windowed_by: str = ""
    """Which key switches the sliding window: none, `sliding_window` itself, or `use_sliding_window`."""


FAMILIES: dict[str, _Family] = {
    "llama": _Family(
        num_key_value_heads=None,
        head_dim=None,
        max_position_embeddings=2048,
        attention_bias=False,
        mlp_bias=True,
        divides_hidden=True,
    ),
    "mistral": _Family(
        num_key_value_heads=8,
        head_dim=None,
        max_position_embeddings=131072,
        attention_bias=None,
        windowed_by="sliding_window",
    ),
    "qwen2": _Family(
        num_key_value_heads=32,
        head_dim=None,
        max_position_embeddings=32768,
        attention_bias=None,
        qkv_bias=True,
        windowed_by="use_sliding_window",
    ),
    "qwen3": _Family(
        num_key_value_heads=32,
        head_dim=128,
        max_position_embeddings=32768,
        attention_bias=False,
        qk_norm=True,
        windowed_by="use_sliding_window",
    ),
}
"""The families that share LLaMA's layer: RMSNorm, rotary attention, RMSNorm, gated MLP (modeling_*.py)."""


def read_config(path: str | Path) -> dict[str, Any]:
    """The content of a `config.json`, given the file or its folder.

    Nothing but JSON is read: code that the file names under `auto_map` is never fetched nor run.

    Raises:
        InputError: no such file, too large, or not a JSON object.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "config.json"
    data = _read_bytes(file)
    if not data.strip():
        raise InputError(f"{file} is empty", "", "give the config.json of a transformers model")
    try:
        config = json.loads(data)
    except (UnicodeDecodeError, RecursionError):
        raise InputError(f"{file} is not JSON text", "", "give the config.json of a transformers model") from None
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise InputError(f"{file} is not valid JSON", reason, "it may be cut short; fetch it again") from None
    except ValueError as error:  # an integer of more digits than Python converts
        raise InputError(f"{file} holds a number that cannot be read", f"{error}".split(";")[0], "") from None
    if not isinstance(config, dict):
        raise InputError(f"{file} holds {_described(config)}", "a config.json is one JSON object", "")
    return config


def _read_bytes(file: Path) -> bytes:
    fix = "give the path of a model's config.json or of its folder"
    try:
        if not file.exists():
            raise InputError(f"no file {file}", "", fix)
        if not file.is_file():
            raise InputError(f"{file} is not a regular file", "", fix)
        size = file.stat().st_size
        if size > MAX_CONFIG_BYTES:
            raise InputError(f"{file} has {size / 2**20:.0f} MiB", "a config.json has a few KiB", fix)
        with file.open("rb") as stream:
            return stream.read(MAX_CONFIG_BYTES)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or f"{error}"
        raise InputError(f"{file} cannot be read", reason, fix) from None


def config_notes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What a person should know about how `config` was understood, one sentence each."""
    if config.get("auto_map"):
        return (
            "auto_map is ignored: the plan is for transformers' own "
            f"{config.get('model_type')} model, not for code that comes with the checkpoint.",
        )
    return ()


def shape_from_config(config: Mapping[str, Any], name: str) -> ModelShape:
    """The shape that transformers would build for `config`.

    Args:
        config: what `config.json` holds.
        name: what to call the model in answers and errors.

    Raises:
        InputError: another family, a missing key, a value of the wrong type, or sizes that contradict each other.
    """
    model_type = _model_type(config, name)
    family = FAMILIES[model_type]
    keys = _Keys(config, name)
    hidden, heads = keys.size("hidden_size"), keys.size("num_attention_heads")
    if family.divides_hidden and hidden % heads:
        raise keys.contradiction("hidden_size", f"{hidden} is not a multiple of num_attention_heads {heads}")
    kv_heads = keys.size("num_key_value_heads", family.num_key_value_heads, absent=heads)
    if heads % kv_heads:
        raise keys.contradiction("num_key_value_heads", f"{kv_heads} does not divide num_attention_heads {heads}")
    head_dim = keys.size("head_dim", family.head_dim, absent=hidden // heads)
    if head_dim % 2:
        raise keys.contradiction("head_dim", f"{head_dim} is odd, and rotary positions need an even size")
    layers = keys.size("num_hidden_layers")
    bias = family.attention_bias is not None and keys.flag("attention_bias", family.attention_bias)
    return ModelShape(
        name=name,
        model_type=model_type,
        hidden_size=hidden,
        intermediate_size=keys.size("intermediate_size"),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=keys.size("vocab_size"),
        max_position_embeddings=keys.size("max_position_embeddings", family.max_position_embeddings),
        tie_word_embeddings=keys.flag("tie_word_embeddings", False),
        qkv_bias=family.qkv_bias or bias,
        output_bias=bias,
        mlp_bias=family.mlp_bias and keys.flag("mlp_bias", False),
        qk_norm=family.qk_norm,
        attention_dropout=keys.fraction("attention_dropout"),
        sliding_window=_sliding_window(keys, family, layers),
        hidden_act=keys.text("hidden_act", "silu"),
    )


def _model_type(config: Mapping[str, Any], name: str) -> str:
    planned = f"plans cover {', '.join(FAMILIES)}; tracing the real model of any other family is planned"
    if isinstance(config.get("text_config"), Mapping):
        raise InputError(
            f"{name} describes a model of several parts (key text_config)",
            "only plain language models can be planned",
            "give the config.json of the language model alone",
        )
    if config.get("quantization_config"):
        raise InputError(
            f"{name} describes quantised weights (key quantization_config)",
            "plans cover weights in bf16 or fp32",
            "give the config.json of the model before it was quantised",
        )
    if "model_type" not in config:
        raise InputError(f"{name} lacks the key model_type", "", "give the config.json of a transformers model")
    model_type = config["model_type"]
    if not isinstance(model_type, str):
        raise InputError(f"{name}: model_type is {_described(model_type)}", "it should be a string", "")
    if model_type not in FAMILIES:
        raise InputError(f"no activation ledger for the {model_type[:40]} family yet ({name})", planned, "")
    return model_type


def _sliding_window(keys: "_Keys", family: _Family, layers: int) -> int | None:
    """Tokens each position attends to; None when that is all of them (configuration_*.py, `layer_types`)."""
    if not family.windowed_by:
        return None
    if family.windowed_by == "sliding_window":
        return keys.optional_size("sliding_window", 4096)
    if not keys.flag("use_sliding_window", False):
        return None
    window = keys.optional_size("sliding_window", 4096)
    first_windowed = keys.count("max_window_layers", 28)
    if window is None or first_windowed >= layers:
        return None
    if first_windowed == 0:
        return window
    raise keys.contradiction(
        "max_window_layers",
        f"{first_windowed} of {layers} layers see everything, the others {window} tokens: no ledger",
    )


class _Keys:
    """Typed access to a config's keys; every complaint names the key."""

    def __init__(self, config: Mapping[str, Any], name: str) -> None:
        self._config = config
        self._name = name

    def contradiction(self, key: str, why: str) -> InputError:
        return InputError(f"{self._name}: {key} {why}", "", f"correct {key} in the config")

    def size(self, key: str, default: int | None = None, *, absent: int | None = None) -> int:
        """A positive integer. `default` stands in for a missing key, `absent` for null or no default."""
        value = self._config.get(key, default)
        if value is None:
            value = absent
        if value is None:
            if key in self._config:
                raise self._wrong(key, None, "a positive integer")
            raise InputError(f"{self._name} lacks the key {key}", "", f"add {key} to the config")
        return self._integer(key, value, least=1)

    def optional_size(self, key: str, default: int | None) -> int | None:
        value = self._config.get(key, default)
        return None if value is None else self._integer(key, value, least=1)

    def count(self, key: str, default: int) -> int:
        return self._integer(key, self._config.get(key, default), least=0)

    def flag(self, key: str, default: bool) -> bool:
        value = self._config.get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def fraction(self, key: str) -> float:
        value = self._config.get(key, 0.0)
        if value is None:
            return 0.0
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < 1.0:
            raise self._wrong(key, value, "a number from 0 to below 1")
        return float(value)

    def text(self, key: str, default: str) -> str:
        value = self._config.get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a string")
        return value

    def _integer(self, key: str, value: object, *, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _LARGEST:
            raise self._wrong(key, value, "a positive integer" if least else "an integer from 0")
        return value

    def _wrong(self, key: str, value: object, wanted: str) -> InputError:
        return InputError(f"{self._name}: {key} is {_described(value)}", f"it should be {wanted}", "")


def _described(value: object) -> str:
    """A JSON value as its author would recognise it, on one short line."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
