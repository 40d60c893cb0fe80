"""Models: real architectures as their `config.json` states them, and their parameter counts, with sources."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from profiles import catalogue
from profiles.configs import FAMILIES, shape_from_config
from profiles.errors import InputError
from profiles.families import MODULES
from profiles.shapes import ModelShape

_FILE = "models.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model of the catalogue."""

    name: str
    aliases: tuple[str, ...]
    hf_id: str | None
    """Its repository on the Hugging Face Hub."""
    family: str
    """`model_type` of its config."""
    parameters: int
    """Of what is trained here, as transformers builds it, each shared parameter once: what a plan and a trace count."""
    embedding_parameters: int
    """Input embedding and, unless tied, output head."""
    tied: bool | None
    """The output head shares the embedding; None for a model without a head."""
    build_class: str
    """The transformers class whose parameters were counted."""
    config: Mapping[str, Any]
    source: str
    confidence: str
    """`read` in the source, or recalled and confirmed by its count."""
    published_parameters: int | None
    published_match: str
    """Whether the published count is `exact`ly ours, differs for an `explained` reason, or is not known (`none`)."""
    published_source: str
    published_note: str
    note: str

    @property
    def planned(self) -> bool:
        """Whether `plan` has an activation ledger for its family."""
        return self.family in FAMILIES or self.family in MODULES

    @property
    def shape(self) -> ModelShape:
        """The shape that the closed form needs.

        Raises:
            InputError: its family has no activation ledger.
        """
        return shape_from_config(self.config, self.name)


def all_models() -> tuple[Model, ...]:
    """Every model of the catalogue, in its order."""
    return tuple(map(_model, catalogue.read_rows(_FILE)))


def find_model(name: str) -> Model:
    """The model whose name, alias or Hub id is `name`; upper and lower case do not matter.

    Raises:
        InputError: no such model; names the nearest ones.
    """
    row = catalogue.find_row(_FILE, name)
    if row is not None:
        return _model(row)
    if catalogue.find_row("gpus.jsonl", name) is not None:
        raise InputError(
            f"{name!r} is a GPU, where a model is asked for", "", f"name the model first, then --gpu {name}"
        )
    raise catalogue.unknown("model", name, catalogue.read_rows(_FILE), "galore-mem models")


def _model(row: catalogue.Row) -> Model:
    return Model(
        name=row["name"],
        aliases=tuple(row["aliases"]),
        hf_id=row["hf_id"],
        family=row["family"],
        parameters=row["parameters"],
        embedding_parameters=row["embedding_parameters"],
        tied=row["tied"],
        build_class=row["build_class"],
        config=row["config"],
        source=row["source"],
        confidence=row["confidence"],
        published_parameters=row["published_parameters"],
        published_match=row["published_match"],
        published_source=row["published_source"],
        published_note=row["published_note"],
        note=row["note"],
    )
