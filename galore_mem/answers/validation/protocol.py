"""What is done for one row, in this order: predict, measure, run again under the predicted bound.

Each stage is written down before the next begins: a prediction that is on disk was made before anything was measured,
also where a run was killed and taken up again.
"""

import json
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from estimators.analytic.attention import attention_kernel
from estimators.analytic.cards import card_of
from estimators.analytic.estimate import estimate
from estimators.footprint import Footprint
from estimators.workload import Workload
from galore_mem.answers.names import Card
from galore_mem.answers.steps import record as record_steps
from galore_mem.answers.trace import answer_of
from galore_mem.answers.validation import reruns
from galore_mem.answers.validation.measuring import Measurement, measure
from galore_mem.answers.validation.shelf import Shelf
from profiles.gpus import SMALL_WORKSPACE_BYTES, Gpu
from profiles.records import Figures, Predictor, Record, Rerun, figures_of, file_stem

Device = Literal["cuda", "cpu"]
MOST_NOTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where rows are held against reality."""

    device: Device
    name: str
    """As the driver says it; `cpu`."""
    card: Card | None
    """The GPU; on a CPU none."""
    environment: dict[str, str]
    """Versions of the software, torch's among them."""
    folder: str
    """Of the records."""

    @property
    def gpu(self) -> Gpu | None:
        """The card's facts."""
        return self.card.gpu if self.card else None

    @property
    def usable_bytes(self) -> int | None:
        """What the card has for a run."""
        return self.card.gpu.usable_bytes - self.card.other_use_bytes if self.card else None

    @property
    def cards(self) -> tuple[Card, ...]:
        """The card, if there is one."""
        return (self.card,) if self.card else ()

    def stem(self, row: str) -> str:
        """A record's file name, without the ending."""
        return file_stem(self.name, self.environment["torch"], row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row to be held against a device."""

    row: str
    workload: Workload
    bench: Bench

    @property
    def shelf(self) -> Shelf:
        """Where its record is kept."""
        return Shelf(folder=self.bench.folder, stem=self.bench.stem(self.row))


def predicted(job: Job) -> Record:
    """The row's record with both predictions: the stored one where a run was broken off after it, or a new one.

    Raises:
        InputError: the workload cannot run on the card, or a file that cannot be read is in its place.
        GaloreMemError: it cannot be traced, or the record cannot be written.
    """
    pending = job.shelf.pending()
    if pending is not None:
        return pending
    start, bench = time.monotonic(), job.bench
    analytic, traced = estimate(job.workload, bench.gpu), _traced(job)
    record = Record(
        row=job.row,
        device=bench.name,
        source="measured" if bench.device == "cuda" else "replayed",
        outcome="predicted",
        environment=bench.environment,
        workload=job.workload.to_dict(),
        model=json.loads(json.dumps(asdict(job.workload.model))),
        attention_kernel=attention_kernel(job.workload, bench.gpu),
        usable_bytes=bench.usable_bytes,
        predicted_at=_now(),
        predicted={"analytic": figures_from(analytic), "traced": figures_from(traced)},
        seconds={"predicting": round(time.monotonic() - start, 1)},
    )
    job.shelf.keep(record)
    return record


def _traced(job: Job) -> Footprint:
    gpu = job.bench.gpu
    kernel = attention_kernel(job.workload, gpu)
    workspace = gpu.cublas_workspace_recent_bytes if gpu else SMALL_WORKSPACE_BYTES
    recording = record_steps(job.workload, kernel, workspace_bytes=workspace, card=card_of(gpu))
    return answer_of(job.workload, kernel, recording, job.bench.cards).footprint


def measured(job: Job, record: Record) -> Record:
    """The record with what the device did: measured, then run again under each predicted bound.

    Raises:
        GaloreMemError: there is no device, or the record cannot be written.
    """
    start = time.monotonic()
    found = measure(job.workload, job.bench.device)
    seconds = {**record.seconds, "measuring": round(time.monotonic() - start, 1)}
    record = replace(
        record,
        outcome=found.outcome,
        environment={**record.environment, **found.environment},
        attention_kernel=found.attention_kernel or record.attention_kernel,
        measured_at=_now(),
        measured=figures_from(found.footprint) if found.footprint else None,
        seconds=seconds,
        notes=found.notes[:MOST_NOTES],
    )
    record = job.shelf.with_tape(record, found.tapes)
    job.shelf.keep(record)
    if record.outcome != "measured":
        return record
    start = time.monotonic()
    again = _reruns(job, record, found)
    seconds = {**seconds, "running again": round(time.monotonic() - start, 1)}
    record = replace(record, reruns=again, seconds=seconds)
    job.shelf.keep(record)
    return record


def keep_failure(job: Job, record: Record, line: str) -> None:
    """Note that a run failed for another reason than memory.

    Raises:
        UsageError: it cannot be written.
    """
    job.shelf.keep(replace(record, outcome="failed", measured_at=_now(), notes=(line,)))


def _reruns(job: Job, record: Record, found: Measurement) -> dict[Predictor, Rerun]:
    """Under the smaller bound first: whoever survives it survives the larger one."""
    bounds = sorted((figures.upper_bytes or 0, name) for name, figures in record.predicted.items())
    survives = reruns.on_gpu(job.workload) if job.bench.device == "cuda" else reruns.replayed(found)
    survived = False
    results: dict[Predictor, Rerun] = {}
    for cap, name in bounds:
        limit = max(0, cap - _context_bytes(record, name))
        implied = survived
        survived = survived or survives(limit)
        results[name] = Rerun(cap_bytes=cap, limit_bytes=limit, survived=survived, implied=implied)
    return results


def _context_bytes(record: Record, predictor: Predictor) -> int:
    """What the context takes of the cap: as measured, else what the bound allows for it."""
    assert record.measured is not None
    if record.measured.context_bytes is not None:
        return record.measured.context_bytes
    return record.predicted[predictor].context_bytes or 0


def figures_from(footprint: Footprint) -> Figures:
    """What a record keeps of a footprint."""
    figures = figures_of(footprint.to_dict())
    if footprint.source == "measured":
        context = (figures.process_bytes or 0) - figures.peak_reserved_bytes
        if context <= 0:  # the driver did not tell: the figure is what torch reserved
            return replace(figures, process_bytes=None, upper_bytes=None, context_bytes=None)
        return replace(figures, upper_bytes=None, context_bytes=context)
    context = sum(term.high_bytes for term in footprint.terms if term.name == "context")
    if footprint.source == "replayed":  # no process was seen
        return replace(figures, process_bytes=None, upper_bytes=None, context_bytes=None)
    return replace(figures, context_bytes=context)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
