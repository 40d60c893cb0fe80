"""Activations between the two halves of an MLP, by transformers' names (activations.py, `ACT2FN`)."""

from profiles.config_keys import ConfigKeys

ACTIVATIONS = ("gelu", "gelu_pytorch_tanh", "silu", "swish", "relu", "gelu_new", "gelu_fast")
"""Those whose tensors are known: one kernel, or several in a row."""


def read_activation(keys: ConfigKeys, key: str, default: str) -> str:
    """The activation.

    Raises:
        UncoveredError: it is none of `ACTIVATIONS`.
        InputError: it is no string.
    """
    name = keys.text(key, default)
    if name not in ACTIVATIONS:
        raise keys.uncovered(key, f"is {name[:40]!r}, which is none of {', '.join(ACTIVATIONS)}")
    return name
