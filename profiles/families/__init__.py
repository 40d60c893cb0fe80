"""Families beside LLaMA's relatives: each module reads its own `config.json` into a shape of its own.

A module has `read(config, name) -> ConfiguredShape`, under the rules and defaults of transformers' configuration class.
It raises `UncoveredError` for a variant without a closed form, and `InputError` for values that make no sense.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from profiles.shapes import ConfiguredShape

Reader = Callable[[Mapping[str, Any], str], ConfiguredShape]

MODULES: dict[str, str] = {
    "bert": "bert",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3_text": "gemma",
    "bloom": "bloom",
    "falcon": "falcon",
    "gpt2": "gpt2",
    "gpt_neox": "gpt_neox",
    "gpt_oss": "gpt_oss",
    "mixtral": "moe",
    "olmo2": "olmo2",
    "opt": "opt",
    "phi": "phi",
    "phi3": "phi3",
    "qwen3_moe": "moe",
    "roberta": "bert",
    "t5": "t5",
}
"""Modules by `model_type`."""


def reader_of(model_type: str) -> Reader:
    """Reads the family's configurations.

    Raises:
        KeyError: no such family.
    """
    reader: Reader = import_module(f"profiles.families.{MODULES[model_type]}").read
    return reader
