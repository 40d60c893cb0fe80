"""Any recording a person has: a Tape, or a snapshot of torch."""

import gc
import os
import zlib
from pathlib import Path

from galore_mem.errors import UsageError
from galore_mem.tapes import pickles
from galore_mem.tapes.checks import Refusal, refuse, unusable
from galore_mem.tapes.file import inflate, tape_from_bytes
from galore_mem.tapes.snapshot import tape_from_snapshot
from galore_mem.tapes.tape import Tape

_LARGEST_FILE_BYTES = 4 << 30
_HOW = "record one with torch.cuda.memory._dump_snapshot(), or with galore-mem trace --tape"


def read_recording(path: str | os.PathLike[str]) -> Tape:
    """Read a Tape or a torch snapshot, whichever it is; nothing in the file is ever run.

    Raises:
        UsageError: no such file, or nothing that can be used; one line that says why.
    """
    file = Path(path)
    try:
        size = file.stat().st_size
        if file.is_dir():
            raise UsageError(f"{path} is a folder", "", "name the file inside it")
        if size > _LARGEST_FILE_BYTES:
            raise unusable(path, "a recording", f"it has {size >> 30} GiB; the most is {_LARGEST_FILE_BYTES >> 30}")
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}", error.strerror or str(error), "name a Tape or a snapshot") from None
    except ValueError as error:
        raise UsageError(f"cannot read {str(path)!r}", str(error), "name a Tape or a snapshot") from None
    collects = gc.isenabled()
    gc.disable()  # a million small dicts, none of them garbage: the collector would double the time
    try:
        return recording_from_bytes(data)
    except Refusal as refusal:
        raise unusable(path, "a recording", str(refusal), _HOW) from None
    finally:
        if collects:
            gc.enable()


def recording_from_bytes(data: bytes) -> Tape:
    """A Tape from a file's content.

    Raises:
        Refusal: it is no recording; says why.
    """
    if not data:
        refuse("it is empty")
    if data[:1] == b"\x80":
        return tape_from_snapshot(pickles.load(data))
    if data[:2] == b"\x1f\x8b":
        head = _head(data)
        return tape_from_snapshot(pickles.load(inflate(data))) if head == b"\x80" else tape_from_bytes(data)
    if data.lstrip()[:1] == b"{":
        return tape_from_bytes(data)
    return refuse("it is neither a Tape nor a pickle of protocol 2 or later")


def _head(data: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(data, 1)
    except zlib.error as error:
        refuse(f"its compression is broken: {error}")
