"""The allocator's peaks under its default settings, for histories that only allocate and free on one stream.

The same rules as `estimators.allocator.device.DeviceAllocator`'s, which a property test holds this to: without other
streams, limits, growing segments and private pools they need a third of the steps.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence

from estimators.allocator.settings import DEFAULTS, MIN_BLOCK_BYTES, SMALL_BYTES
from estimators.allocator.sizes import round_512, segment_bytes

_FIRST_ADDRESS = 1 << 33


class _Piece:
    """A piece of a segment, lent or cached, between its neighbours."""

    __slots__ = ("address", "after", "before", "cached", "size")

    after: "_Piece | None"
    before: "_Piece | None"

    def __init__(self, address: int, size: int) -> None:
        self.address = address
        self.size = size
        self.before = self.after = None
        self.cached = False


class _Pool:
    """Cached pieces of small or of large requests."""

    __slots__ = ("addresses", "least_rest_bytes", "pieces", "sizes")

    def __init__(self, least_rest_bytes: int) -> None:
        self.least_rest_bytes = least_rest_bytes
        """A piece is split where so much of it would be left."""
        self.addresses: dict[int, list[int]] = {}
        """Of the cached pieces of each size, in order; a list may be left empty."""
        self.sizes: list[int] = []
        """The keys of that, in order."""
        self.pieces: dict[int, _Piece] = {}
        """Cached pieces by their addresses."""

    def lend(self, size: int) -> _Piece | None:
        """The smallest piece of at least `size` bytes, the lowest address among equals, and what is too much of it."""
        sizes = self.sizes
        place = bisect_left(sizes, size)
        while place < len(sizes) and not self.addresses[sizes[place]]:
            del self.addresses[sizes.pop(place)]
        if place == len(sizes):
            return None
        piece = self.pieces.pop(self.addresses[sizes[place]].pop(0))
        piece.cached = False
        return self.split(piece, size)

    def split(self, piece: _Piece, size: int) -> _Piece:
        """The first `size` bytes of a piece, or all of it where too little would be left."""
        remaining = piece.size - size
        if remaining < self.least_rest_bytes:
            return piece
        lent, before = _Piece(piece.address, size), piece.before
        if before is not None:
            before.after = lent
        lent.before, lent.after, piece.before = before, piece, lent
        piece.address += size
        piece.size = remaining
        self._cache(piece)
        return lent

    def take_back(self, piece: _Piece) -> None:
        """Join a piece with its cached neighbours, and cache it."""
        before, after = piece.before, piece.after
        if before is not None and before.cached:
            self._forget(before)
            piece.address = before.address
            piece.size += before.size
            piece.before = before = before.before
            if before is not None:
                before.after = piece
        if after is not None and after.cached:
            self._forget(after)
            piece.size += after.size
            piece.after = after = after.after
            if after is not None:
                after.before = piece
        self._cache(piece)

    def _cache(self, piece: _Piece) -> None:
        address, size = piece.address, piece.size
        piece.cached = True
        self.pieces[address] = piece
        addresses = self.addresses.get(size)
        if addresses:
            insort(addresses, address)
        elif addresses is None:
            self.addresses[size] = [address]
            insort(self.sizes, size)
        else:
            addresses.append(address)

    def _forget(self, piece: _Piece) -> None:
        address = piece.address
        del self.pieces[address]
        addresses = self.addresses[piece.size]
        if len(addresses) == 1:
            addresses.clear()
        else:
            del addresses[bisect_left(addresses, address)]


def plain_peaks(codes: Sequence[int], sizes: Sequence[int]) -> tuple[int, int]:
    """Allocated and reserved bytes at their peaks.

    Args:
        codes: the number of a block for an allocation, its negative for a free.
        sizes: bytes asked for, by the block's number; there is no block 0.

    >>> plain_peaks([1, -1], [0, 3 << 20])
    (3145728, 20971520)
    """
    small, large = _Pool(MIN_BLOCK_BYTES), _Pool(SMALL_BYTES + 1)
    requests = {size: (round_512(size), small if size <= SMALL_BYTES else large) for size in set(sizes)}
    asked = [requests[size] for size in sizes]
    lent: list[_Piece | None] = [None] * len(sizes)
    allocated = peak_allocated = reserved = 0
    for code in codes:
        if code < 0:
            piece = lent[-code]
            assert piece is not None
            allocated -= piece.size
            asked[-code][1].take_back(piece)
            continue
        size, pool = asked[code]
        addresses = pool.addresses.get(size)
        if addresses:
            piece = pool.pieces.pop(addresses.pop(0))
            piece.cached = False
        else:
            piece = pool.lend(size)
            if piece is None:
                segment = segment_bytes(size, DEFAULTS)
                piece = pool.split(_Piece(_FIRST_ADDRESS + reserved, segment), size)
                reserved += segment
        lent[code] = piece
        allocated += piece.size
        if allocated > peak_allocated:
            peak_allocated = allocated
    return peak_allocated, reserved
