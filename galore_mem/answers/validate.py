"""How right are the predictions? Run a matrix of workloads on this machine's device, and hold both against it."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_args

from estimators.accuracy import Accuracy, accuracy_of
from estimators.analytic.estimate import reach
from estimators.checks import check
from galore_mem.answers.calibrated import calibrated
from galore_mem.answers.homes import records_folder
from galore_mem.answers.names import Card
from galore_mem.answers.validation.costs import total_seconds
from galore_mem.answers.validation.crew import Crew, Done
from galore_mem.answers.validation.matrix import Row, chosen
from galore_mem.answers.validation.protocol import Bench, Device, Job
from galore_mem.answers.validation.shelf import ready_folder
from galore_mem.errors import MissingExtraError, NoDeviceError, UsageError
from profiles.errors import InputError
from profiles.records import SHIPPED, SOURCES, Record, RecordSource, read_folder

DEFAULT_MINUTES = 8.0
Told = Callable[[str], object]
"""Called with one line about every row as something becomes of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A row that was not run."""

    row: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The records of a folder, and what they say together."""

    folders: tuple[str, ...]
    records: tuple[Record, ...]
    problems: tuple[str, ...]
    """Files that could not be read, one line each."""

    def of(self, source: RecordSource) -> tuple[Record, ...]:
        """Those that came about in one way."""
        return tuple(record for record in self.records if record.source == source)

    def accuracy(self, source: RecordSource) -> tuple[Accuracy, ...]:
        """Of the records that came about in one way."""
        return accuracy_of(self.of(source))

    def to_dict(self) -> dict[str, Any]:
        """The object of the JSON output."""
        return {
            "schema": "galore-mem/validation/1",
            "folders": list(self.folders),
            "accuracy": {source: [asdict(each) for each in self.accuracy(source)] for source in SOURCES},
            "records": [record.to_dict() for record in self.records],
            "problems": list(self.problems),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """One run through the matrix."""

    folder: str
    done: tuple[Done, ...]
    skipped: tuple[Skipped, ...]
    kept: int
    """Rows whose records were there already."""
    stored: Stored


def stored(folder: str | None = None) -> Stored:
    """The records of a folder; without one, the project's own and a person's.

    Raises:
        InputError: there is no such folder.
    """
    folders = (folder,) if folder else tuple(dict.fromkeys((SHIPPED, records_folder())))
    records: list[Record] = []
    problems: list[str] = []
    for place in folders:
        if folder is None and not os.path.isdir(place):
            continue
        found, broken = read_folder(place)
        records += found
        problems += map(str, broken)
    return Stored(folders=folders, records=tuple(records), problems=tuple(problems))


def validate(
    *,
    device: Device = "cuda",
    into: str | None = None,
    only: str | None = None,
    limit_minutes: float = DEFAULT_MINUTES,
    again: bool = False,
    workers: int | None = None,
    rows: Sequence[Row] | None = None,
    told: Told | None = None,
) -> Validation:
    """Run the matrix: predict every row on this machine, measure it, run it again under the predicted bound.

    Rows whose records are there already are left alone: the same line takes up a run that was broken off.

    Args:
        device: `cuda`, this machine's first GPU; `cpu` runs the smallest rows on CPU tensors and replays them.
        into: folder of the records; a checkout's `profiles/measured`, or one of the person's own, unless given.
        only: rows whose names match, with shell wildcards, or contain this.
        limit_minutes: no row is begun that should end later.
        again: measure rows anew that have records.
        workers: processes that import and predict side by side.
        rows: another matrix.
        told: called with a line about every row.

    Raises:
        InputError, UsageError: no row of such a name, or a folder that cannot be used.
        NoDeviceError: no GPU that can be used.
        MissingExtraError: torch is not installed.
    """
    told = told or (lambda line: None)
    wanted = (
        [row for row in rows if not only or only in row.name]
        if rows is not None
        else chosen(only, on_cpu=device == "cpu")
    )
    if not wanted:
        raise InputError(f"no row matches {only!r}", "", "galore-mem validate --list shows all")
    start = time.monotonic()
    bench = bench_of(device, into)
    jobs, skipped, kept = _jobs(wanted, bench, again=again)
    for row in skipped:
        told(f"{row.row}: skipped, {row.why}")
    count = workers or _workers(device)
    minutes = total_seconds([job.workload for job in jobs], count) / 60
    told(f"{len(jobs)} rows to run on {bench.name}, about {minutes:.1f} min; {kept} have records in {bench.folder}")
    until = start + 60 * limit_minutes
    crew = Crew(jobs, workers=count, until=until, started=lambda job: told(f"{job.row}: measuring"))
    done = _run(crew, told)
    return Validation(
        folder=bench.folder, done=tuple(done), skipped=tuple(skipped), kept=kept, stored=stored(bench.folder)
    )


def _run(crew: Crew, told: Told) -> list[Done]:
    done: list[Done] = []
    running = crew.run()
    for outcome in running:
        done.append(outcome)
        told(f"{outcome.job.row}: {outcome.state.replace('-', ' ')}{': ' * bool(outcome.line)}{outcome.line}")
        if outcome.is_fatal:
            running.close()
            finished = sum(each.state in ("measured", "out-of-memory") for each in done)
            raise _stopped(outcome, finished)
    return done


def _stopped(outcome: Done, finished: int) -> NoDeviceError | UsageError:
    kind = UsageError if outcome.line.startswith("cannot write") else NoDeviceError
    return kind(
        f"{outcome.job.row}: {outcome.line}",
        f"{finished} rows were finished and are kept",
        "run the same line again to go on",
    )


def _jobs(rows: Sequence[Row], bench: Bench, *, again: bool) -> tuple[list[Job], list[Skipped], int]:
    jobs: list[Job] = []
    skipped: list[Skipped] = []
    kept = 0
    for row in rows:
        job = Job(row=row.name, workload=row.workload, bench=bench)
        try:
            finished, why = job.shelf.is_final(), _why_not(row, job)
        except InputError as error:
            finished, why = False, str(error)
        if why:
            skipped.append(Skipped(row=row.name, why=why))
        elif finished and not again:
            kept += 1
        else:
            jobs.append(job)
    return jobs, skipped, kept


def _why_not(row: Row, job: Job) -> str:
    """Why a row cannot run here; empty where it can.

    Raises:
        InputError: the card lacks what the row needs.
    """
    gpu, usable = job.bench.gpu, job.bench.usable_bytes
    check(job.workload, gpu)
    if gpu is None or usable is None:
        return ""
    needed = reach(job.workload, gpu).process_bytes
    if needed <= usable or row.too_large:
        return ""
    return f"it needs {needed / 2**30:.1f} GiB and the GPU has {usable / 2**30:.1f}"


def bench_of(device: Device, into: str | None = None) -> Bench:
    """This machine's device, ready to be measured on, and the folder of its records.

    Raises:
        InputError, UsageError: no such device, or a folder that cannot be used.
        NoDeviceError: no GPU that can be used.
        MissingExtraError: torch or transformers is not installed.
    """
    if device not in get_args(Device):
        raise InputError(f"--device {device} is not known", "", f"choose {', '.join(get_args(Device))}")
    card, name = None, "cpu"
    if device == "cuda":
        from galore_mem.answers.local_gpu import NAME_A_CARD, local_gpus

        try:
            first = local_gpus()[0]
        except NoDeviceError as error:
            fix = error.fix.replace(NAME_A_CARD, "hold the smallest rows against CPU tensors: --device cpu")
            raise NoDeviceError(error.what, error.why, fix) from None
        card = calibrated(Card(gpu=first.gpu, other_use_bytes=first.other_use_bytes))
        name = first.device_name
    environment: dict[str, str] = {}
    for package in ("torch", "transformers"):
        try:
            environment[package] = version(package)
        except PackageNotFoundError:
            raise MissingExtraError("validate", "train", package) from None
    if card is not None and card.note:
        environment["calibration"] = card.note
    folder = ready_folder(into or records_folder())
    return Bench(device=device, name=name, card=card, environment=environment, folder=folder)


def _workers(device: Device) -> int:
    """Importing and predicting keep one core busy each; on a CPU the measured row needs its cores for itself."""
    cores = os.cpu_count() or 1
    return min(6, max(1, cores // 2)) if device == "cuda" else 1
