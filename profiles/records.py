"""Records: workloads that ran on a real device, what had been predicted for them before, and what was then measured.

One JSON file per workload, `profiles/measured/<device>.<torch>.<row>.json`, with its Tape beside it where it is small.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from profiles.errors import InputError
from profiles.fields import Fields, read_object

SCHEMA = "galore-mem/record/1"
SUFFIX = ".json"
PENDING_SUFFIX = ".pending"
"""Of predictions whose workload has not run yet; no record."""
SHIPPED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "measured")
"""Where records lie that belong to the project."""

Outcome = Literal["predicted", "measured", "out-of-memory", "failed"]
RecordSource = Literal["measured", "replayed"]
Predictor = Literal["analytic", "traced"]
OUTCOMES: tuple[Outcome, ...] = ("predicted", "measured", "out-of-memory", "failed")
SOURCES: tuple[RecordSource, ...] = ("measured", "replayed")
PREDICTORS: tuple[Predictor, ...] = ("analytic", "traced")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One moment of a step. Sizes are bytes."""

    iteration: str
    name: str
    live_bytes: int
    by_category: Mapping[str, int]

    @property
    def label(self) -> str:
        """Iteration and name."""
        return f"{self.iteration} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Peaks, moments and what stays, as one source says. Sizes are bytes."""

    peak_live_bytes: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    process_bytes: int | None
    """None where the driver did not tell what the process held."""
    upper_bytes: int | None = None
    """A prediction's bound of the process; a measurement has none."""
    context_bytes: int | None = None
    """What of the bound, or of what the process held, was the CUDA context: no allocator's."""
    peak_moment: str
    at_peak_bytes: Mapping[str, int]
    resident_bytes: Mapping[str, int]
    moments: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """The same run once more, with memory capped at a prediction's upper bound."""

    cap_bytes: int
    """What the process may hold: the upper bound."""
    limit_bytes: int
    """What of it is left to the allocator: the cap less the context."""
    survived: bool
    implied: bool = False
    """Not run: it survived under a smaller cap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One workload on one device."""

    row: str
    """Its name in the matrix."""
    device: str
    """The card as its driver names it, or `cpu`."""
    source: RecordSource
    """`measured` on a GPU, or `replayed`: run on CPU tensors, its history through the allocator's replica."""
    outcome: Outcome
    """`predicted` only until it has run."""
    environment: Mapping[str, str]
    workload: Mapping[str, Any]
    model: Mapping[str, Any]
    """The model's shape."""
    attention_kernel: str
    usable_bytes: int | None
    """Total memory as torch reports it, or what a plan for the card counts with."""
    predicted_at: str
    """UTC."""
    measured_at: str = ""
    predicted: Mapping[Predictor, Figures]
    measured: Figures | None = None
    reruns: Mapping[Predictor, Rerun] = field(default_factory=dict)
    tape: str = ""
    """File name of the Tape beside it; empty where it was too large."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The file's object."""
        return {
            "schema": SCHEMA,
            "row": self.row,
            "device": self.device,
            "source": self.source,
            "outcome": self.outcome,
            "environment": dict(self.environment),
            "workload": dict(self.workload),
            "model": dict(self.model),
            "attention_kernel": self.attention_kernel,
            "usable_bytes": self.usable_bytes,
            "predicted_at": self.predicted_at,
            "measured_at": self.measured_at,
            "predicted": {name: figures_dict(figures) for name, figures in self.predicted.items()},
            "measured": figures_dict(self.measured) if self.measured else None,
            "reruns": {
                name: {
                    "cap_bytes": rerun.cap_bytes,
                    "limit_bytes": rerun.limit_bytes,
                    "survived": rerun.survived,
                    "implied": rerun.implied,
                }
                for name, rerun in self.reruns.items()
            },
            "tape": self.tape,
            "seconds": dict(self.seconds),
            "notes": list(self.notes),
        }

    def to_bytes(self) -> bytes:
        """The file's content."""
        return (json.dumps(self.to_dict(), indent=1, sort_keys=True) + "\n").encode("ascii")


def figures_dict(figures: Figures) -> dict[str, Any]:
    """Figures as a record holds them."""
    return {
        "peak_live_bytes": figures.peak_live_bytes,
        "peak_allocated_bytes": figures.peak_allocated_bytes,
        "peak_reserved_bytes": figures.peak_reserved_bytes,
        "process_bytes": figures.process_bytes,
        "upper_bytes": figures.upper_bytes,
        "context_bytes": figures.context_bytes,
        "peak_moment": figures.peak_moment,
        "at_peak_bytes": dict(figures.at_peak_bytes),
        "resident_bytes": dict(figures.resident_bytes),
        "moments": [
            {
                "iteration": point.iteration,
                "name": point.name,
                "live_bytes": point.live_bytes,
                "by_category": dict(point.by_category),
            }
            for point in figures.moments
        ],
    }


def figures_of(footprint: Mapping[str, Any]) -> Figures:
    """Figures out of a FOOTPRINT object, whose further entries are passed over.

    Raises:
        InputError: an entry is missing or has another type.
    """
    return _figures(Fields(footprint, "the footprint", "a footprint"))


def read_record(path: str | os.PathLike[str]) -> Record:
    """One record.

    Raises:
        InputError: the file cannot be read, is broken, or was written by another version.
    """
    fields = read_object(path, "a record", SCHEMA)
    predicted, reruns = fields.inner("predicted"), fields.inner("reruns")
    environment, seconds = fields.inner("environment"), fields.inner("seconds")
    return Record(
        row=fields.text("row"),
        device=fields.text("device"),
        source=cast("RecordSource", fields.text("source", SOURCES)),
        outcome=cast("Outcome", fields.text("outcome", OUTCOMES)),
        environment={name: environment.text(name) for name in environment},
        workload=fields.inner("workload").plain,
        model=fields.inner("model").plain,
        attention_kernel=fields.text("attention_kernel"),
        usable_bytes=fields.maybe_count("usable_bytes"),
        predicted_at=fields.text("predicted_at"),
        measured_at=fields.text("measured_at"),
        predicted={name: _figures(predicted.inner(name)) for name in PREDICTORS if name in predicted},
        measured=_figures(fields.inner("measured")) if "measured" in fields else None,
        reruns={name: _rerun(reruns.inner(name)) for name in PREDICTORS if name in reruns},
        tape=fields.text("tape"),
        seconds={name: seconds.number(name) for name in seconds},
        notes=fields.texts("notes"),
    )


def _figures(fields: Fields) -> Figures:
    return Figures(
        peak_live_bytes=fields.count("peak_live_bytes"),
        peak_allocated_bytes=fields.count("peak_allocated_bytes"),
        peak_reserved_bytes=fields.count("peak_reserved_bytes"),
        process_bytes=fields.maybe_count("process_bytes"),
        upper_bytes=fields.maybe_count("upper_bytes"),
        context_bytes=fields.maybe_count("context_bytes"),
        peak_moment=fields.text("peak_moment"),
        at_peak_bytes=fields.counts("at_peak_bytes"),
        resident_bytes=fields.counts("resident_bytes"),
        moments=tuple(
            Point(
                iteration=point.text("iteration"),
                name=point.text("name"),
                live_bytes=point.count("live_bytes"),
                by_category=point.counts("by_category"),
            )
            for point in fields.inners("moments")
        ),
    )


def _rerun(fields: Fields) -> Rerun:
    return Rerun(
        cap_bytes=fields.count("cap_bytes"),
        limit_bytes=fields.count("limit_bytes"),
        survived=fields.flag("survived"),
        implied=fields.flag("implied"),
    )


def read_folder(folder: str | os.PathLike[str]) -> tuple[tuple[Record, ...], tuple[InputError, ...]]:
    """Every record of a folder by file name, and why the other files could not be read.

    Raises:
        InputError: there is no such folder.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX) and not name.startswith("."))
    except OSError as error:
        raise InputError(f"cannot read the folder {os.fspath(folder)}", error.strerror or str(error), "") from None
    records, problems = [], []
    for name in names:
        try:
            records.append(read_record(os.path.join(folder, name)))
        except InputError as problem:
            problems.append(problem)
    return tuple(records), tuple(problems)


def file_stem(device: str, torch: str, row: str) -> str:
    """The name under which a record and its Tape are kept."""
    return ".".join(slug(part) for part in (device, f"torch-{torch.partition('+')[0]}", row))


def slug(text: str) -> str:
    """Letters, digits, hyphens and underscores: fit for a file name anywhere."""
    kept = "".join(each if each.isascii() and (each.isalnum() or each == "_") else "-" for each in text.lower())
    return "-".join(part for part in kept.split("-") if part)
