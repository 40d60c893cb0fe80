"""Any recording a person has: a Tape, or a snapshot of torch."""

import gc
import io
import os
import zlib

from galore_mem.errors import UsageError
from galore_mem.tapes import file as tape_file
from galore_mem.tapes import pickles
from galore_mem.tapes.checks import Refusal, refuse, unusable
from galore_mem.tapes.file import tape_from_bytes
from galore_mem.tapes.snapshot import tape_from_snapshot
from galore_mem.tapes.tape import Tape
from galore_mem.tapes.window import PIECE_BYTES, Read, inflated

_LARGEST_FILE_BYTES = 4 << 30
_HOW = "record one with torch.cuda.memory._dump_snapshot(), or with galore-mem trace --tape"


def read_recording(path: str | os.PathLike[str]) -> Tape:
    """Read a Tape or a torch snapshot, whichever it is; nothing in the file is ever run.

    Raises:
        UsageError: no such file, or nothing that can be used; one line that says why.
    """
    try:
        with _opened(path) as stream:
            return _collected(stream)
    except Refusal as refusal:
        raise unusable(path, "a recording", str(refusal), _HOW) from None
    except OSError as error:
        raise UsageError(f"cannot read {path}", error.strerror or str(error), "name a Tape or a snapshot") from None


def _opened(path: str | os.PathLike[str]) -> io.FileIO:
    try:
        if os.path.isdir(path):
            raise UsageError(f"{path} is a folder", "", "name the file inside it")
        stream = io.FileIO(path)
    except ValueError as error:
        raise UsageError(f"cannot read {str(path)!r}", str(error), "name a Tape or a snapshot") from None
    size = os.fstat(stream.fileno()).st_size
    if size > _LARGEST_FILE_BYTES:
        stream.close()
        raise unusable(path, "a recording", f"it has {size >> 30} GiB; the most is {_LARGEST_FILE_BYTES >> 30}")
    return stream


def recording_from_bytes(data: bytes) -> Tape:
    """A Tape from a file's content.

    Raises:
        Refusal: it is no recording; says why.
    """
    return _collected(io.BytesIO(data))


def _collected(stream: io.FileIO | io.BytesIO) -> Tape:
    """Read without the collector: many small objects, none of them garbage, and it would double the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        return _read(stream)
    finally:
        if collects:
            gc.enable()


def _read(stream: io.FileIO | io.BytesIO) -> Tape:
    read = _reader(stream)
    head = read(PIECE_BYTES)
    again = _after(head, read)
    if not head:
        refuse("it is empty")
    if head[:1] == b"\x80":
        return tape_from_snapshot(pickles.load(again))
    if head[:2] == b"\x1f\x8b":
        most = tape_file.LARGEST_CONTENT_BYTES
        if _first_byte(head) == b"\x80":
            return tape_from_snapshot(pickles.load(inflated(again, most)))
        return tape_from_bytes(_all(again))
    if head.lstrip()[:1] == b"{":
        return tape_from_bytes(_all(again))
    return refuse("it is neither a Tape nor a pickle of protocol 2 or later")


def _reader(stream: io.FileIO | io.BytesIO) -> Read:
    return lambda count: stream.read(count) or b""


def _after(head: bytes, read: Read) -> Read:
    """The same reading from its beginning, whose first bytes are known already."""
    held = [head]
    return lambda count: held.pop() if held else read(count)


def _all(read: Read) -> bytes:
    pieces = []
    while piece := read(PIECE_BYTES):
        pieces.append(piece)
    return b"".join(pieces)


def _first_byte(data: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(data, 1)
    except zlib.error as error:
        refuse(f"its compression is broken: {error}")
