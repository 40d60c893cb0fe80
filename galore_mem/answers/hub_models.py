"""Models by their name on the Hugging Face Hub."""

from estimators.analytic.parameters import parameter_count
from galore_mem.answers.names import NamedConfig
from galore_mem.hub.headers import Weights
from galore_mem.hub.repository import read_model, repository_of
from profiles.configs import parse_config
from profiles.errors import InputError
from profiles.shapes import ModelShape

_BY_WEIGHTS = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}


def from_hub(name: str) -> NamedConfig:
    """The model `org/name`, or `org/name@revision`; only its config.json and the headers of its weights are read.

    Raises:
        InputError: no such name, or its config is no JSON object.
        UsageError: the Hub shows no such model.
        NetworkError: the Hub was needed and did not answer.
    """
    wanted = repository_of(name)
    if wanted is None:
        raise InputError(
            f"{name[:120]!r} is neither in the catalogue, nor a path here, nor a name of the Hub",
            "those are org/name or org/name@revision",
            "galore-mem models lists the catalogue",
        )
    found = read_model(*wanted)
    return NamedConfig(
        name=found.repository,
        config=parse_config(found.config, f"config.json of {found.repository}"),
        source=found.source,
        is_file=True,
        notes=found.notes,
        checkpoint=found.weights,
    )


def differences(shape: ModelShape, weights: Weights) -> tuple[str, ...]:
    """Where the checkpoint is not what transformers builds from the configuration."""
    notes = []
    planned = parameter_count(shape)
    more = weights.total - planned
    if more and more == shape.vocab_size * shape.hidden_size and shape.tie_word_embeddings:
        notes.append("its checkpoint stores the output head, which is tied to the embedding: it is planned once")
    elif more:
        notes.append(
            f"its checkpoint stores {weights.total:,} parameters, and its configuration makes {planned:,}: the plan is "
            "for the latter"
        )
    if weights.dtype == "F32":
        notes.append("its weights are stored in fp32, and transformers 5 loads them so: for that add --precision fp32")
    elif weights.dtype not in _BY_WEIGHTS:
        notes.append(f"its weights are stored as {weights.dtype}, which plans do not cover: they are planned in bf16")
    return tuple(notes)
