"""What the configurations of decoders with rotary positions have in common, read with each family's own defaults."""

from collections.abc import Mapping, Sequence
from typing import Any

from profiles.config_keys import ConfigKeys
from profiles.configs import GATE_ACTIVATIONS

SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
"""Without a default unless a family says so: transformers would silently take those of another model."""
LAYER_TYPES = ("full_attention", "sliding_attention")


def sizes(
    keys: ConfigKeys,
    defaults: Mapping[str, int],
    *,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    divides_hidden: bool = False,
) -> dict[str, Any]:
    """Fields of `ModelShape` that are numbers of elements.

    Args:
        keys: the config.
        defaults: the family's, by key, for keys that may be missing.
        kv_heads: key-value heads where the key is missing; None means as many as query heads, as null does.
        head_dim: width of a head where the key is missing; None means the hidden size divided by the query heads.
        divides_hidden: the family refuses heads that do not divide the hidden size.

    Raises:
        InputError: sizes that contradict each other.
    """
    found = {key: keys.size(key, defaults.get(key)) for key in (*SIZES, "max_position_embeddings")}
    hidden, heads = found["hidden_size"], found["num_attention_heads"]
    if divides_hidden and hidden % heads:
        raise keys.contradiction("hidden_size", f"{hidden} is not a multiple of num_attention_heads {heads}")
    shared = keys.size("num_key_value_heads", kv_heads, absent=heads if kv_heads is None else None)
    if heads % shared:
        raise keys.contradiction("num_key_value_heads", f"{shared} does not divide num_attention_heads {heads}")
    derived = hidden // heads
    if head_dim is None and not keys.has("head_dim"):
        if not derived or derived % 2:
            why = f"{heads} makes heads of {derived} elements, and rotary positions need an even size"
            raise keys.contradiction("num_attention_heads", why)
        head_dim = derived
    width = keys.size("head_dim", head_dim)
    if width % 2:
        raise keys.contradiction("head_dim", f"{width} is odd, and rotary positions need an even size")
    return found | {"num_key_value_heads": shared, "head_dim": width}


def activation(keys: ConfigKeys, key: str = "hidden_act", default: str = "silu") -> str:
    """The gated MLP's activation.

    Raises:
        UncoveredError: one that does not run as one kernel.
    """
    name = keys.text(key, default)
    if name not in GATE_ACTIVATIONS:
        raise keys.uncovered(key, f"is {name[:40]!r}, which is none of {', '.join(GATE_ACTIVATIONS)}")
    return name


def layer_types(keys: ConfigKeys, layers: int, default: Sequence[str]) -> tuple[str, ...]:
    """Each layer's attention: `full_attention` or `sliding_attention`.

    Raises:
        InputError: not as many as layers.
        UncoveredError: another kind.
    """
    kinds = keys.texts("layer_types")
    if kinds is None:
        return tuple(default)
    if len(kinds) != layers:
        raise keys.contradiction("layer_types", f"has {len(kinds)} entries for num_hidden_layers {layers}")
    odd = set(kinds) - set(LAYER_TYPES)
    if odd:
        raise keys.uncovered("layer_types", f"names {min(odd)[:40]!r}")
    return tuple(kinds)
