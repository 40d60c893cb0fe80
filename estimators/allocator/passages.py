"""What a replay may pass over: stretches of a history whose temporaries leave nothing behind.

What an allocator has cached is the gaps between the blocks that live. A temporary that is gone before the next block
is made that stays is therefore without consequence, unless it makes the allocator take a new segment, or is part of the
largest moment. A cached piece large enough for all that a stretch makes rules the one out; bounds on the other are
known beforehand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from estimators.allocator.settings import MIN_BLOCK_BYTES, SMALL_BYTES

UNIT_BYTES = MIN_BLOCK_BYTES
"""Blocks are whole multiples of it."""
LARGE_UNITS = SMALL_BYTES // UNIT_BYTES
"""Blocks of more than these belong to the large pool."""


def units_of(size_bytes: int) -> int:
    """Units of a block for a request."""
    return max(1, -(-size_bytes // UNIT_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Passage:
    """What is known of a stretch that histories repeat. Sizes are in units of 512 bytes."""

    length: int
    """Of its codes."""
    keeps: tuple[int, ...]
    """Offsets of the codes that matter for what follows it; none where all that it makes dies in it."""
    small: int
    """A cached piece of so much in the small pool serves all of its small requests."""
    large: int
    """The same in the large pool; 0 where it makes nothing large."""
    most: int
    """Blocks that it makes take no more at once."""


class Section(NamedTuple):
    """A passage in a history."""

    start: int
    """Index of its first code."""
    passage: Passage


@lru_cache(maxsize=4096)
def passage_of(codes: tuple[int, ...], sizes: tuple[int, ...]) -> Passage:
    """What may be passed over.

    Args:
        codes: of a stretch, its blocks numbered from 1 on; 0 frees a block that was made before it.
        sizes: bytes asked for, in the order of the numbers.
    """
    units = [0, *map(units_of, sizes)]
    deaths = {-code: place for place, code in enumerate(codes) if code < 0}
    matters = _that_matter(codes, units, deaths)
    return Passage(
        length=len(codes),
        keeps=tuple(place for place, code in enumerate(codes) if not code or matters[abs(code)]),
        small=_extent(codes, units, deaths, is_large=False),
        large=_extent(codes, units, deaths, is_large=True),
        most=_most(codes, units),
    )


def _that_matter(codes: Sequence[int], units: Sequence[int], deaths: dict[int, int]) -> list[bool]:
    """By number: blocks that stay, and those that live when another one of their pool is made that matters."""
    found = [False] * len(units)
    nearest = {False: len(codes), True: len(codes)}
    """Where the next block is made that matters, by pool."""
    for place in range(len(codes) - 1, -1, -1):
        code = codes[place]
        if code > 0:
            is_large = units[code] > LARGE_UNITS
            if deaths.get(code, len(codes) + 1) > nearest[is_large]:
                found[code], nearest[is_large] = True, place
    return found


def _extent(codes: Sequence[int], units: Sequence[int], deaths: dict[int, int], *, is_large: bool) -> int:
    """Of one cached piece, the most from its beginning on that blocks may reach when no room is used twice.

    When all temporaries are gone, what stays lies no further than it was put.
    """
    reach = lasting = extent = alive = 0
    for code in codes:
        if not code or (units[abs(code)] > LARGE_UNITS) is not is_large:
            continue
        if code > 0:
            reach += units[code]
            extent = max(extent, reach)
            if code in deaths:
                alive += 1
            else:
                lasting = reach
        else:
            alive -= 1
            if not alive:
                reach = lasting
    return extent + (LARGE_UNITS + 1 if is_large and extent else 0)


def _most(codes: Sequence[int], units: Sequence[int]) -> int:
    """A large block may be lent with up to a mebibyte more than was asked for."""
    own = [size + LARGE_UNITS * (size > LARGE_UNITS) for size in units]
    level = most = 0
    for code in codes:
        level += own[code] if code >= 0 else -own[-code]
        most = max(most, level)
    return most
