"""The folder that records are kept in: read first, written whole, never overwritten by mistake."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from galore_mem.errors import UsageError
from galore_mem.tapes.atomic import write_bytes
from galore_mem.tapes.file import tape_bytes
from galore_mem.tapes.tape import Tape
from profiles.errors import InputError
from profiles.records import PENDING_SUFFIX, PREDICTORS, SUFFIX, Record, read_record

TAPE_SUFFIX, LOG_SUFFIX = ".tape.json.gz", ".log"
LARGEST_TAPE_BYTES = 512 << 10
"""Larger ones are not kept: a matrix's records should travel in one small archive."""
FINAL = ("measured", "out-of-memory")
"""Outcomes that need no further run."""


def ready_folder(folder: str) -> str:
    """The folder, made if it is missing.

    Raises:
        UsageError: it cannot be made or written to.
    """
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make the folder {folder}", error.strerror or str(error), "name one with --into"
        ) from None
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write to the folder {folder}", "", "name one you may write to with --into")
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """The place of one row's record."""

    folder: str
    stem: str
    """File name without its ending."""

    @property
    def path(self) -> str:
        """The record."""
        return os.path.join(self.folder, self.stem + SUFFIX)

    @property
    def pending_path(self) -> str:
        """Its predictions, until it has run: an older record stays what it is meanwhile."""
        return os.path.join(self.folder, self.stem + PENDING_SUFFIX)

    @property
    def _log_path(self) -> str:
        return os.path.join(self.folder, self.stem + LOG_SUFFIX)

    def stored(self) -> Record | None:
        """What is known of the row; None where nothing is.

        Raises:
            InputError: a file of its name is there and cannot be read: it is left alone.
        """
        return read_record(self.path) if os.path.lexists(self.path) else None

    def is_final(self) -> bool:
        """Whether the row needs no further run.

        Raises:
            InputError: a file of its name is there and cannot be read.
        """
        record = self.stored()
        return record is not None and record.outcome in FINAL

    def pending(self) -> Record | None:
        """Predictions of a run that was broken off; None where there are none that can be used."""
        try:
            record = read_record(self.pending_path)
        except InputError:
            return None
        return record if len(record.predicted) == len(PREDICTORS) else None

    def keep(self, record: Record) -> None:
        """Write a record, whole or not at all. A failure never takes the place of a measurement.

        Raises:
            UsageError: it cannot be written.
        """
        if record.outcome == "predicted":
            write_bytes(self.pending_path, record.to_bytes())
        elif record.outcome in FINAL or not self.is_final():
            write_bytes(self.path, record.to_bytes())
            for stale in (self.pending_path, self._log_path) if record.outcome in FINAL else (self.pending_path,):
                with suppress(OSError):
                    os.unlink(stale)

    def keep_log(self, text: str) -> None:
        """Keep what a failed row printed beside its record; a row that fails has said so already, so this may fail."""
        with suppress(UsageError):
            write_bytes(self._log_path, text.encode(errors="replace"))

    def with_tape(self, record: Record, tapes: Sequence[Tape]) -> Record:
        """Keep the Tape beside the record where it is small; say where it is not, or where there was no room."""
        if not tapes:
            return record
        content = tape_bytes(tapes[0])
        if len(content) > LARGEST_TAPE_BYTES:
            return _noted(record, f"its Tape takes {len(content) >> 10} KiB and was not kept")
        name = self.stem + TAPE_SUFFIX
        try:
            write_bytes(os.path.join(self.folder, name), content)
        except UsageError as error:
            return _noted(record, f"its Tape was not kept: {error.why}")
        return replace(record, tape=name)


def _noted(record: Record, note: str) -> Record:
    return replace(record, notes=(*record.notes, note))
