"""A model's shape from its `config.json`, under the rules of transformers 5.23's own configuration classes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiles.config_keys import ConfigKeys, described
from profiles.errors import InputError, UncoveredError
from profiles.families import MODULES, reader_of
from profiles.shapes import FULL, SLIDING, ConfiguredShape, ModelShape

if TYPE_CHECKING:
    from pathlib import Path

MAX_CONFIG_BYTES = 10 * 2**20
HEADS = {
    "causal-lm": ("ForCausalLM", "a causal language model with its output head"),
    "seq2seq-lm": ("ForConditionalGeneration", "an encoder and a decoder with its output head"),
    "classification": ("ForSequenceClassification", "a classifier of sequences"),
}
"""What a head's class is called, and what it trains."""
WITHOUT_ATTENTION = frozenset({"falcon_mamba", "mamba", "mamba2", "rwkv", "xlstm"})
"""Families whose layers have kernels of their own, which no trace reaches either."""
UNPLAYED = {
    "deepseek_v2": "its attention goes through latent vectors, and its experts are shared and routed ones",
    "deberta-v2": "its attention takes apart what a token says and where it stands",
}
"""Families of the catalogue without a closed form, and what none covers."""
_FIX = "give the path of a transformers model's config.json or of its folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """Where the members of the LLaMA family differ, and what they assume for a missing key."""

    num_key_value_heads: int | None
    """Used when the key is missing; None, like `null` in the config, means as many as query heads."""
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

GATE_ACTIVATIONS = ("silu", "swish", "gelu", "gelu_pytorch_tanh")
"""Activations that run as one kernel and save their input only; others save less (relu) or much more (gelu_new)."""


def read_config(path: "str | Path") -> dict[str, Any]:
    """The content of a `config.json`, given the file or its folder.

    Nothing but JSON is read: code that the file names under `auto_map` is never fetched nor run.

    Raises:
        InputError: no such file, too large, or not a JSON object.
    """
    from pathlib import Path

    file = Path(path)
    if file.is_dir():
        file = file / "config.json"
    shown = f"{file}" if f"{file}".isprintable() else ascii(f"{file}")
    return parse_config(_read_bytes(file, shown), shown)


def parse_config(data: bytes, shown: str) -> dict[str, Any]:
    """The content of a `config.json`, given its bytes and what to call it in errors.

    Raises:
        InputError: not a JSON object.
    """
    if not data.strip():
        raise InputError(f"{shown} is empty", "", _FIX)
    try:
        config = json.loads(data)
    except (UnicodeDecodeError, RecursionError):
        raise InputError(f"{shown} is not JSON text", "", _FIX) from None
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at line {error.lineno}, column {error.colno}"
        fix = "it may be cut short: fetch it again"
        if shown.endswith((".yaml", ".yml")):
            fix = "the training configuration of another tool goes behind --from"
        raise InputError(f"{shown} is not valid JSON", reason, fix) from None
    except ValueError as error:  # an integer of more digits than Python converts
        raise InputError(f"{shown} holds a number that cannot be read", f"{error}".split(";")[0], _FIX) from None
    if not isinstance(config, dict):
        raise InputError(f"{shown} holds {described(config)}", "a config.json is one JSON object", _FIX)
    return config


def _read_bytes(file: "Path", shown: str) -> bytes:
    try:
        if not file.exists():
            raise InputError(f"no file {f'{file}'!r}", "", _FIX)
        if not file.is_file():
            raise InputError(f"{shown} is not a regular file", "", _FIX)
        size = file.stat().st_size
        if size > MAX_CONFIG_BYTES:
            raise InputError(f"{shown} has {size / 2**20:.0f} MiB", "a config.json has a few KiB", _FIX)
        with file.open("rb") as stream:
            return stream.read(MAX_CONFIG_BYTES)
    except OSError as error:
        raise InputError(f"{shown} cannot be read", error.strerror or f"{error}", _FIX) from None


def config_notes(config: Mapping[str, Any], shape: ModelShape | None = None) -> tuple[str, ...]:
    """What a person should know about how `config` was understood, one sentence each."""
    notes = []
    if config.get("auto_map"):
        notes.append(
            "auto_map is ignored: the plan is for transformers' own "
            f"{config.get('model_type')} model, not for code that comes with the checkpoint."
        )
    architectures = config.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    head = shape.head if isinstance(shape, ConfiguredShape) else "causal-lm"
    ending, planned = HEADS[head]
    if isinstance(named, str) and not named.endswith(ending):
        notes.append(f"architectures names {named[:60]}: the plan is for {planned}.")
    return tuple(notes)


def shape_from_config(config: Mapping[str, Any], name: str) -> ModelShape:
    """The shape that transformers would build for `config`.

    Args:
        config: what `config.json` holds.
        name: what to call the model in answers and errors.

    Raises:
        UncoveredError: another family, or a variant that no closed form covers.
        InputError: a missing key, a value of the wrong type, or sizes that contradict each other.
    """
    model_type = _model_type(config, name)
    if model_type in MODULES:
        return reader_of(model_type)(config, name)
    family = FAMILIES[model_type]
    keys = ConfigKeys(config, name)
    hidden, heads = keys.size("hidden_size"), keys.size("num_attention_heads")
    if family.divides_hidden and hidden % heads:
        raise keys.contradiction("hidden_size", f"{hidden} is not a multiple of num_attention_heads {heads}")
    kv_heads = keys.size("num_key_value_heads", family.num_key_value_heads, absent=heads)
    if heads % kv_heads:
        raise keys.contradiction("num_key_value_heads", f"{kv_heads} does not divide num_attention_heads {heads}")
    derived = hidden // heads
    if family.head_dim is None and config.get("head_dim") is None and (not derived or derived % 2):
        why = f"{heads} makes heads of {derived} elements, and rotary positions need an even size"
        raise keys.contradiction("num_attention_heads", why)
    head_dim = keys.size("head_dim", family.head_dim, absent=None if family.head_dim else derived)
    if head_dim % 2:
        raise keys.contradiction("head_dim", f"{head_dim} is odd, and rotary positions need an even size")
    layers = keys.size("num_hidden_layers")
    kinds = _layer_types(keys, family, layers)
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
        sliding_window=_sliding_window(keys, family, kinds),
        layer_types=kinds if len(set(kinds)) > 1 else (),
        hidden_act=_activation(keys),
    )


def _model_type(config: Mapping[str, Any], name: str) -> str:
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
        raise InputError(f"{name}: model_type is {described(model_type)}", "it should be a string", "")
    if model_type not in FAMILIES and model_type not in MODULES:
        why = UNPLAYED.get(model_type, f"plans cover {', '.join((*FAMILIES, *MODULES))}")
        fix = f"run: galore-mem trace {name}"
        if model_type in WITHOUT_ATTENTION:
            fix = (
                "a trace does not cover it either: record steps of yours on a GPU, with galore_mem.profile() as p: ..."
            )
        raise UncoveredError(f"no activation ledger for the {model_type[:40]} family yet ({name})", why, fix)
    return model_type


def _activation(keys: ConfigKeys) -> str:
    name = keys.text("hidden_act", "silu")
    if name not in GATE_ACTIVATIONS:
        known = ", ".join(GATE_ACTIVATIONS)
        raise keys.uncovered("hidden_act", f"is {name[:40]!r}, which is none of {known}")
    return name


def _layer_types(keys: ConfigKeys, family: _Family, layers: int) -> tuple[str, ...]:
    """Each layer's kind, where layers differ or all slide (configuration_qwen2.py)."""
    if family.windowed_by != "use_sliding_window":
        return ()
    kinds = keys.texts("layer_types")
    window = keys.optional_size("sliding_window", 4096) if keys.flag("use_sliding_window", False) else None
    if kinds is None:
        full = layers if window is None else min(layers, keys.count("max_window_layers", 28))
        kinds = [FULL] * full + [SLIDING] * (layers - full)
    if len(kinds) != layers:
        raise keys.contradiction("layer_types", f"has {len(kinds)} entries for num_hidden_layers {layers}")
    odd = set(kinds) - {FULL, SLIDING}
    if odd:
        raise keys.uncovered("layer_types", f"names {min(odd)[:40]!r}")
    if SLIDING in kinds and window is None:
        raise keys.contradiction("layer_types", "asks for sliding_attention, but use_sliding_window is off")
    return tuple(kinds) if SLIDING in kinds else ()


def _sliding_window(keys: ConfigKeys, family: _Family, kinds: tuple[str, ...]) -> int | None:
    """Tokens each position of a sliding layer attends to; None where no layer slides."""
    if family.windowed_by == "sliding_window" or kinds:
        return keys.optional_size("sliding_window", 4096)
    return None
