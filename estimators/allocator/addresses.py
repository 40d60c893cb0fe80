"""Where segments lie: the driver's choice, which nobody can foretell but a recording can tell.

Only the order of addresses matters to the allocator: among equal free blocks the lowest is lent.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable

_FIRST_ADDRESS = 1 << 33
_GUARD_BYTES = 1 << 21


class Addresses:
    """Addresses for new segments: the recorded ones while they fit the replay, rising ones otherwise."""

    def __init__(self) -> None:
        self._next = _FIRST_ADDRESS
        self._recorded: deque[tuple[int, int]] = deque()
        self._held: list[tuple[int, int]] = []

    def rising(self, size: int) -> int:
        """An address above all others."""
        address = self._next
        self._next += -(-size // _GUARD_BYTES) * _GUARD_BYTES
        return address

    def hold(self, address: int, size: int) -> None:
        """A segment lies there."""
        insort(self._held, (address, size))
        self._next = max(self._next, address + size + _GUARD_BYTES)

    def expect(self, segments: Iterable[tuple[int, int]]) -> None:
        """Give new segments the (bytes, address) that a recording gave them, in order.

        At the first segment of another size than recorded, or that would overlap one still held, the rest is dropped.
        """
        self._recorded = deque(segments)

    def take(self, size: int) -> int:
        """An address for a new segment."""
        if not self._recorded:
            return self.rising(size)
        recorded_size, address = self._recorded.popleft()
        if recorded_size == size and not self._overlaps(address, size):
            self.hold(address, size)
            return address
        self._recorded.clear()
        return self.rising(size)

    def release(self, address: int, size: int) -> None:
        """A segment was given back."""
        if self._recorded:
            index = bisect_left(self._held, (address, size))
            if index < len(self._held) and self._held[index] == (address, size):
                del self._held[index]

    def _overlaps(self, address: int, size: int) -> bool:
        following = bisect_left(self._held, (address, 0))
        before, before_size = self._held[following - 1] if following else (address, 0)
        after, _ = self._held[following] if following < len(self._held) else (address + size, 0)
        return before + before_size > address or after < address + size
