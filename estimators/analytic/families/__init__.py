"""The families of models whose steps are played: one module each, with parameters, buffers and program."""

from functools import cache
from importlib import import_module

from estimators.analytic.families.family import Family
from profiles.shapes import ModelShape

MODULES = {
    "bloom": "bloom",
    "falcon": "falcon",
    "gpt2": "gpt2",
    "gpt_neox": "gpt_neox",
    "opt": "opt",
    "phi": "phi",
    "llama": "llama",
    "mistral": "llama",
    "gpt_oss": "gpt_oss",
    "mixtral": "moe",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3_text": "gemma",
    "olmo2": "olmo2",
    "phi3": "phi3",
    "qwen2": "llama",
    "qwen3": "llama",
    "qwen3_moe": "moe",
    "bert": "bert",
    "roberta": "roberta",
    "t5": "t5",
}
"""Modules by `model_type`."""


@cache
def family_of(model_type: str) -> Family:
    """The family.

    Raises:
        KeyError: none of that name is played.
    """
    family: Family = import_module(f"estimators.analytic.families.{MODULES[model_type]}").FAMILY
    return family


def takes_chunked_loss(shape: ModelShape) -> bool:
    """Whether head and loss can be computed for a piece of the tokens at a time."""
    return shape.model_type in MODULES and family_of(shape.model_type).chunked_loss
