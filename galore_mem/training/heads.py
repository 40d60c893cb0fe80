"""Which of transformers' classes trains a model, and how it runs attention: for families that no closed form covers."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from estimators.analytic.parameters import matches
from galore_mem.errors import UsageError
from profiles.shapes import ConfiguredShape, ModelShape

ATTENTION_KEY = "galore_mem"
"""Under which our attention and mask functions are registered; transformers looks for a kernel on the Hub where the
name contains `flash`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A model class."""

    name: str
    """`causal-lm`, `seq2seq-lm` or `classification`."""
    class_name: str
    attention_code: str
    """`shared`, `sdpa` or `own`: see `profiles.shapes.ConfiguredShape`."""


AUTO_CLASSES = {
    "causal-lm": "AutoModelForCausalLM",
    "seq2seq-lm": "AutoModelForSeq2SeqLM",
    "classification": "AutoModelForSequenceClassification",
}

PEFT_TASKS = {"causal-lm": "CAUSAL_LM", "seq2seq-lm": "SEQ_2_SEQ_LM", "classification": "SEQ_CLS"}
"""Peft's names of what is trained."""


def trained_head(shape: ModelShape) -> str:
    """What is trained on top: a key of `AUTO_CLASSES`."""
    return shape.head if isinstance(shape, ConfiguredShape) else "causal-lm"


def target_modules(model: Any, patterns: tuple[str, ...]) -> list[str]:  # noqa: ANN401
    """Names of the layers that `target_modules` means: linear ones and transformers' Conv1D.

    `all-linear` spares the output head; another pattern may name it.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = inner.get_output_embeddings()
    explicit = tuple(pattern for pattern in patterns if pattern != "all-linear")
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    return [name for name, module in found if matches(name, explicit if module is head else patterns)]


def own_config(content: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401
    """Transformers' own configuration object of a `config.json`.

    Raises:
        UsageError: this transformers does not know the architecture, or refuses a value.
    """
    import transformers

    words: dict[str, Any] = {"decoder_start_token_id": 0} if "decoder_start_token_id" not in content else {}
    words |= {key: value for key, value in content.items() if key not in ("model_type", "auto_map")}
    model_type = content.get("model_type")
    if model_type not in transformers.CONFIG_MAPPING:
        raise UsageError(
            f"transformers {transformers.__version__} does not know the architecture {str(model_type)[:40]!r} ({name})",
            "its own code is never run" if "auto_map" in content else "",
            "run: pip install -U transformers",
        )
    try:
        return transformers.AutoConfig.for_model(model_type, **words)
    except Exception as error:  # each configuration class has checks, and errors, of its own
        raise UsageError(f"{name} makes no sense to transformers", _short(error), "check its config.json") from None


def head_of(config: Any, architectures: object, name: str) -> Head:  # noqa: ANN401
    """What is trained: language modelling where the model can, and sequence classification for encoders.

    Raises:
        UsageError: transformers has no such class for the family.
    """
    import transformers

    kind = type(config)
    can = {head: _class(getattr(transformers, auto), kind) for head, auto in AUTO_CLASSES.items()}
    is_encoder = _class(transformers.AutoModelForMaskedLM, kind) is not None and not getattr(
        config, "is_decoder", False
    )
    if isinstance(architectures, list) and any(str(one).endswith("ForCausalLM") for one in architectures):
        is_encoder = False
    wanted = "seq2seq-lm" if getattr(config, "is_encoder_decoder", False) else "causal-lm"
    wanted = "classification" if is_encoder and wanted == "causal-lm" else wanted
    found = can[wanted]
    if found is None:
        raise UsageError(
            f"transformers has no {wanted} class for {config.model_type} ({name})", "", "name a language model"
        )
    return Head(name=wanted, class_name=found.__name__, attention_code=_attention_code(found))


def _class(auto: Any, kind: type) -> type | None:  # noqa: ANN401
    if kind not in auto._model_mapping:
        return None
    found = auto._model_mapping[kind]
    return found[0] if isinstance(found, tuple | list) else found  # type: ignore[no-any-return]


def _attention_code(found: Any) -> str:  # noqa: ANN401
    """How the class runs attention, from what its module says."""
    module = sys.modules[found.__module__]
    if hasattr(module, "ALL_ATTENTION_FUNCTIONS"):
        return "shared" if found._supports_sdpa else "own"
    return "sdpa" if found._supports_sdpa else "own"


def attention_word(attention_code: str) -> str:
    """What to ask transformers for as `_attn_implementation`."""
    words = {"shared": ATTENTION_KEY, "eager": ATTENTION_KEY, "biased": ATTENTION_KEY, "sdpa": "sdpa"}
    return words.get(attention_code, "eager")


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:197]}..."
