"""From the bytes a program asks for to the bytes a block and a segment take."""

from estimators.allocator.settings import (
    MIN_BLOCK_BYTES,
    MIN_LARGE_ALLOC_BYTES,
    POWER2_INTERVALS,
    ROUND_LARGE_BYTES,
    SMALL_BYTES,
    SMALL_SEGMENT_BYTES,
    AllocatorSettings,
)


def round_512(size_bytes: int) -> int:
    """Rounded up to whole 512 B, at least one: what a live tensor counts for."""
    return max(MIN_BLOCK_BYTES, -(-size_bytes // MIN_BLOCK_BYTES) * MIN_BLOCK_BYTES)


def block_bytes(size_bytes: int, settings: AllocatorSettings) -> int:
    """Block size for a request (`round_size`, CUDACachingAllocator.cpp).

    >>> from estimators.allocator.settings import AllocatorSettings
    >>> block_bytes(1200 << 20, AllocatorSettings(roundup_power2_divisions=(4,) * 16)) >> 20
    1280
    """
    if size_bytes < MIN_BLOCK_BYTES:
        return MIN_BLOCK_BYTES
    interval = min(max(size_bytes.bit_length() - 21, 0), POWER2_INTERVALS - 1)
    divisions = settings.roundup_power2_divisions[interval]
    if divisions > 1 and size_bytes > MIN_BLOCK_BYTES * divisions:
        return _round_to_division(size_bytes, divisions)
    return round_512(size_bytes)


def _round_to_division(size_bytes: int, divisions: int) -> int:
    """The next of `divisions` equal steps between two powers of two (`roundup_power2_next_division`)."""
    floor = 1 << (size_bytes.bit_length() - 1)
    if size_bytes == floor:
        return size_bytes
    step = floor >> (divisions.bit_length() - 1)
    return -(-size_bytes // step) * step if step else floor << 1


def segment_bytes(block_size_bytes: int, settings: AllocatorSettings) -> int:
    """What a new segment for a block takes from the driver (`get_allocation_size`)."""
    if block_size_bytes <= SMALL_BYTES:
        return SMALL_SEGMENT_BYTES
    if block_size_bytes < MIN_LARGE_ALLOC_BYTES:
        return settings.large_segment_size_bytes
    return -(-block_size_bytes // ROUND_LARGE_BYTES) * ROUND_LARGE_BYTES
