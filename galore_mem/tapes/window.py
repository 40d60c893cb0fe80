"""A file read piece by piece: what lies ahead is at hand, what lies behind is forgotten."""

import zlib
from collections.abc import Callable

from galore_mem.tapes.checks import refuse

PIECE_BYTES = 1 << 20
Read = Callable[[int], bytes]
"""Up to so many bytes more; none at the end."""


class Window:
    """The part of a file that is being looked at.

    Attributes:
        data: bytes at hand.
        position: of the next byte in `data`.
    """

    def __init__(self, read: Read) -> None:
        self.data = b""
        self.position = 0
        self._read = read
        self._passed = 0
        self._at_end = False

    @property
    def offset(self) -> int:
        """Of the next byte in the file."""
        return self._passed + self.position

    def ahead(self, count: int) -> int:
        """How many bytes lie ahead: at least `count` of them unless the file ends before."""
        found = len(self.data) - self.position
        if found >= count or self._at_end:
            return found
        pieces = [self.data[self.position :]]
        self._passed += self.position
        while found < count and not self._at_end:
            piece = self._read(PIECE_BYTES)
            self._at_end = not piece
            pieces.append(piece)
            found += len(piece)
        self.data, self.position = b"".join(pieces), 0
        return found

    def take(self, count: int) -> bytes:
        """The next bytes, exactly so many.

        Raises:
            Refusal: the file ends before.
        """
        if len(self.data) - self.position < count and self.ahead(count) < count:
            refuse("it is cut off")
        start = self.position
        self.position = start + count
        return self.data[start : self.position]


def inflated(read: Read, most_bytes: int) -> Read:
    """The content of a gzipped file, as it is read.

    Args:
        read: the file.
        most_bytes: of content; the reading refuses a file that unpacks to more, and one whose compression is broken.
    """
    machine = zlib.decompressobj(wbits=31)
    given = 0

    def more(count: int) -> bytes:
        nonlocal given
        while not machine.eof:
            packed = machine.unconsumed_tail or read(PIECE_BYTES)
            try:
                piece = machine.decompress(packed, count)
            except (zlib.error, MemoryError) as error:
                refuse(f"its compression is broken: {error}")
            given += len(piece)
            if given > most_bytes:
                refuse(f"it unpacks to more than {most_bytes >> 20} MiB")
            if piece:
                return piece
            if not packed and not machine.eof:
                refuse("it is cut off")
        return b""

    return more
