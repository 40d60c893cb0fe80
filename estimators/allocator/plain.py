"""The allocator's peaks, for histories that only allocate and free on one stream.

The same rules as `estimators.allocator.device.DeviceAllocator`'s, which a property test holds this to, under its
default settings and under expandable segments: without other streams, limits and private pools they need a third of
the steps. Where nothing is ever given back to the driver, an expandable pool is one segment that grows at its end.
Sections of a history that may be passed over are said beforehand (`passages`); whether one is depends on what is cached
where it begins.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from estimators.allocator.passages import LARGE_UNITS, UNIT_BYTES, Passage, Section, units_of
from estimators.allocator.settings import DEFAULTS, SMALL_SEGMENT_BYTES
from estimators.allocator.sizes import segment_bytes

_BITS = 40
"""Of an address, counted in units: 512 TiB, far beyond what any replica hands out."""
_ADDRESS = (1 << _BITS) - 1
_ENDLESS = 1 << 2 * _BITS
_LEAST_REST, _LEAST_LARGE_REST = 1 << _BITS, (LARGE_UNITS + 1) << _BITS
"""A piece is split where at least so much of it would be left, as a piece at address 0."""
_PAGES = SMALL_SEGMENT_BYTES // UNIT_BYTES, DEFAULTS.large_segment_size_bytes // UNIT_BYTES
"""By which the small and the large pool's expandable segments grow."""


def plain_peaks(
    codes: Sequence[int], sizes: Sequence[int], sections: Iterable[Section] = (), *, is_expandable: bool = False
) -> tuple[int, int]:
    """Allocated and reserved bytes at their peaks.

    Args:
        codes: the number of a block for an allocation, its negative for a free.
        sizes: bytes asked for, by the block's number; there is no block 0.
        sections: of the codes, in order, that may be passed over.
        is_expandable: whether segments are expandable; else the settings are the default ones.

    >>> codes, sizes = [1, -1, 2, -2], [0, 30 << 20, 50 << 20]
    >>> plain_peaks(codes, sizes), plain_peaks(codes, sizes, is_expandable=True)
    ((52428800, 83886080), (52428800, 62914560))
    """
    state, place = _Expandable(sizes) if is_expandable else _State(sizes), 0
    for section in sections:
        if section.start > place:
            state.play(codes[place : section.start])
        place = section.start + section.passage.length
        state.pass_over(codes[section.start : place], section.passage)
    state.play(codes[place:])
    return state.peak * UNIT_BYTES, state.reserved * UNIT_BYTES


class _Pool(NamedTuple):
    """Cached pieces, and the numbers of their blocks."""

    pieces: list[int]
    """In order; before and after them stands what is no piece."""
    numbers: list[int]
    least_rest: int
    """A piece is split where at least so much of it would be left."""
    end: int
    """What stands behind the last block of an expandable segment; -1 where segments do not grow."""


class _Kind(NamedTuple):
    """Blocks of one size."""

    size: int
    sought: int
    """A piece of the size at address 0."""
    shift: int
    """What a piece loses that such a block is cut from: its size shrinks, and its address grows."""
    pieces: list[int]
    """Of its pool, as the others."""
    numbers: list[int]
    least_rest: int
    end: int


class _Kinds(dict[int, _Kind]):
    """By bytes asked for."""

    def __init__(self, pools: Sequence[_Pool]) -> None:
        super().__init__()
        self._pools = pools

    def __missing__(self, size_bytes: int) -> _Kind:
        size = units_of(size_bytes)
        sought = size << _BITS
        found = self[size_bytes] = _Kind(size, sought, sought - size, *self._pools[size > LARGE_UNITS])
        return found


class _State:
    """What is lent and cached, in units of 512 bytes.

    A cached piece is a number, its size before its address: in order they are sorted as the allocator searches them,
    smallest first and the lowest address among equals. Pieces and lent blocks go by numbers too; a piece has that of
    the block that it was, or of its segment. 0 is no block, and stands at the ends of segments.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.peak = 0
        """Allocated, at most."""
        self.reserved = 0
        self._allocated = 0
        self._pools = self._made(len(sizes))
        """Small and large: told apart by a block's size, since what the large pool lends is never as small as what the
        small one does."""
        self._sizes = sizes
        self._kinds = _Kinds(self._pools)
        self._lent = [self._kinds[0]] * len(sizes)
        """Of blocks, while they are lent: those may be larger than what was asked for."""
        self._origins = [0] * len(sizes)
        """The pieces that blocks were cut from, which end with their addresses."""
        numbers = len(sizes) + len(self._pools)
        self._cached = [0] * numbers
        """Pieces by their numbers; 0 for what is lent or gone."""
        self._before = [0] * numbers
        """Numbers of neighbours."""
        self._after = [0] * numbers
        self._unchanged: set[Passage] = set()
        """Passages replayed since something else was."""

    @staticmethod
    def _made(_number: int) -> tuple[_Pool, _Pool]:
        """Empty pools."""
        small, large = (_Pool([0, _ENDLESS], [0, 0], rest, -1) for rest in (_LEAST_REST, _LEAST_LARGE_REST))
        return small, large

    def pass_over(self, codes: Sequence[int], passage: Passage) -> None:
        """Replay as little of a section as leaves all figures as they would be."""
        if passage in self._unchanged:
            return
        reserved = self.reserved
        is_certain = self._allocated + passage.most <= self.peak
        is_certain = is_certain and passage.small <= (self._largest(0))
        is_certain = is_certain and passage.large <= (self._largest(1))
        if is_certain and passage.keeps:
            self.play([codes[offset] for offset in passage.keeps])
        elif not is_certain:
            unchanged = self._unchanged
            self.play(codes)
            if not passage.keeps and self.reserved == reserved:
                unchanged.add(passage)
                self._unchanged = unchanged

    def _largest(self, pool: int) -> int:
        return self._pools[pool].pieces[-2] >> _BITS

    def play(self, codes: Sequence[int]) -> None:
        """Allocations and frees."""
        sizes, kinds, lent, origins = self._sizes, self._kinds, self._lent, self._origins
        cached, before, after = self._cached, self._before, self._after
        allocated, peak = self._allocated, self.peak
        for code in codes:
            if code > 0:
                lent[code] = kind = kinds[sizes[code]]
                size, sought, shift, pieces, numbers, least_rest, end = kind
                place = bisect_left(pieces, sought)
                number = numbers[place]
                if not number:
                    number = self._grow(pieces, numbers, size)
                    place = bisect_left(pieces, sought)
                elif after[number] == end and numbers[place + 1]:  # what can grow counts as larger than all others
                    place += 1
                    number = numbers[place]
                piece = pieces[place]
                origins[code] = piece
                before[code] = other = before[number]
                after[other] = code
                rest = piece - shift
                if rest >= least_rest:
                    after[code] = number
                    before[number] = code
                    cached[number] = rest
                    if pieces[place - 1] > rest:
                        del pieces[place], numbers[place]
                        place = bisect_left(pieces, rest, 0, place)
                        pieces.insert(place, rest)
                        numbers.insert(place, number)
                    else:
                        pieces[place] = rest
                else:
                    cached[number] = 0
                    after[code] = other = after[number]
                    before[other] = code
                    del pieces[place], numbers[place]
                    if rest > _ADDRESS:
                        size = piece >> _BITS
                        lent[code] = kinds[size * UNIT_BYTES]
                allocated += size
                if allocated > peak:
                    peak = allocated
                continue
            code = -code
            size, sought, shift, pieces, numbers, _, _ = lent[code]
            allocated -= size
            left, right = before[code], after[code]
            piece, other = cached[right], cached[left]
            if piece:
                place = bisect_left(pieces, piece)
                cached[right] = 0
                after[code] = right = after[right]
                before[right] = code
                if other:
                    del pieces[place], numbers[place]
                    sought += piece >> _BITS << _BITS
                else:
                    piece += shift
            if other:
                place = bisect_left(pieces, other)
                cached[left] = 0
                before[code] = left = before[left]
                after[left] = code
                piece = other + sought
            elif not piece:
                cached[code] = piece = sought | origins[code] & _ADDRESS
                place = bisect_left(pieces, piece)
                pieces.insert(place, piece)
                numbers.insert(place, code)
                continue
            cached[code] = piece
            if piece < pieces[place + 1]:
                pieces[place] = piece
                numbers[place] = code
            else:
                del pieces[place], numbers[place]
                place = bisect_left(pieces, piece, place)
                pieces.insert(place, piece)
                numbers.insert(place, code)
        self._allocated, self.peak = allocated, peak
        self._unchanged = set()

    def _grow(self, pieces: list[int], numbers: list[int], size: int) -> int:
        """A new segment, cached; returns its number."""
        segment = segment_bytes(size * UNIT_BYTES, DEFAULTS) // UNIT_BYTES
        piece, number = segment << _BITS | self.reserved, len(self._cached)
        self.reserved += segment
        self._cached.append(piece)
        self._before.append(0)
        self._after.append(0)
        place = bisect_left(pieces, piece)
        pieces.insert(place, piece)
        numbers.insert(place, number)
        return number


class _Expandable(_State):
    """The same with segments that grow by pages, as long as the driver gives some: one in each pool."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__(sizes)
        self._extents = [0, 0]
        """Of the pools' segments."""

    @staticmethod
    def _made(number: int) -> tuple[_Pool, _Pool]:
        small, large = (_Pool([0, _ENDLESS], [0, 0], _LEAST_REST, end) for end in (number, number + 1))
        return small, large

    def _grow(self, pieces: list[int], numbers: list[int], size: int) -> int:
        """Pages behind the last block, or more of it if that is cached; returns its number."""
        is_large = pieces is self._pools[1].pieces
        end, page = self._pools[is_large].end, _PAGES[is_large]
        number = self._before[end]
        piece = self._cached[number]
        if piece:
            place = bisect_left(pieces, piece)
            del pieces[place], numbers[place]
        else:
            last, number, piece = number, len(self._cached), self._extents[is_large]
            self._cached.append(0)
            self._before.append(last)
            self._after.append(end)
            self._after[last] = self._before[end] = number
        mapped = -(-(size - (piece >> _BITS)) // page) * page
        self._extents[is_large] += mapped
        self.reserved += mapped
        self._cached[number] = piece = piece + (mapped << _BITS)
        place = bisect_left(pieces, piece)
        pieces.insert(place, piece)
        numbers.insert(place, number)
        return number
