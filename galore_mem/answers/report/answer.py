"""`galore-mem report`: one recording explained byte by byte, or two laid over each other."""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass

from galore_mem.answers.names import resolve_cards
from galore_mem.answers.report.differences import Differences, differences_of
from galore_mem.answers.report.rules import read_rules
from galore_mem.answers.report.run import RunReport, run_report
from galore_mem.answers.report.sheet import Sheet, read_sheet
from galore_mem.answers.sizes import size_bytes
from galore_mem.tapes.file import tape_bytes_within
from galore_mem.tapes.recording import read_recording
from galore_mem.tapes.tape import Tape
from profiles.errors import InputError

LARGEST_RAW_BYTES = 1_500_000
"""Of a run's compressed Tape that a page carries; larger ones stay in their file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a page shows."""

    runs: tuple[RunReport, ...]
    """One or two."""
    differences: Differences | None
    raw: tuple[str, ...]
    """Each run's whole Tape, gzipped and in base64; empty where it is too large for a page."""


def report(
    files: Sequence[str | os.PathLike[str]],
    *,
    gpus: str | Sequence[str] = (),
    other_use: str | int | None = None,
    categories: str | os.PathLike[str] | None = None,
    device: int | None = None,
) -> Report:
    """Read one or two recordings and compute everything their page draws.

    Args:
        files: Tapes, or snapshots of torch.
        gpus: cards to judge by; those that a recording names unless given.
        other_use: memory that other processes take from each card.
        categories: a TOML file of rules for the categories of blocks.
        device: number of the device to draw; the busiest unless given.

    Raises:
        UsageError: a file cannot be read, or holds nothing that could be drawn.
        InputError: an unknown card, or more than two files.
    """
    if not 1 <= len(files) <= 2:
        raise InputError(f"a report takes one file or two, not {len(files)}", "", "name one, or two to compare")
    return report_of(
        [(os.path.basename(os.fspath(file)), read_recording(file)) for file in files],
        gpus=gpus,
        other_use=other_use,
        categories=categories,
        device=device,
    )


def sheets_of(files: Sequence[str | os.PathLike[str]]) -> tuple[Sheet, ...]:
    """The files as answers without histories; empty where they are recordings.

    Raises:
        InputError: one is an answer and the other a recording, or an answer is broken.
    """
    sheets = [read_sheet(file) for file in files]
    found = tuple(sheet for sheet in sheets if sheet is not None)
    if found and len(found) < len(files):
        raise InputError(
            "an answer's JSON and a recording cannot be compared", "the answer has no history", "give two of a kind"
        )
    return found


def report_of(
    recordings: Sequence[tuple[str, Tape]],
    *,
    gpus: str | Sequence[str] = (),
    other_use: str | int | None = None,
    categories: str | os.PathLike[str] | None = None,
    device: int | None = None,
) -> Report:
    """The same for recordings that are read already, each with its name."""
    other_bytes = None if other_use is None else size_bytes(other_use, "--other-use")
    cards = resolve_cards((gpus,) if isinstance(gpus, str) else gpus, other_bytes)
    rules = read_rules(categories) if categories is not None else ()
    runs = tuple(run_report(tape, name, device=device, cards=cards, rules=rules) for name, tape in recordings)
    return Report(
        runs=runs,
        differences=differences_of(*runs) if len(runs) == 2 else None,
        raw=tuple(_raw(tape) for _, tape in recordings),
    )


def _raw(tape: Tape) -> str:
    data = tape_bytes_within(tape, LARGEST_RAW_BYTES)
    return base64.b64encode(data).decode("ascii") if data is not None else ""
