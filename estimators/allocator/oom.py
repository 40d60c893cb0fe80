"""What the allocator says when nothing helped."""

from dataclasses import asdict, dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfMemory:
    """A refused allocation: what was asked, held, free and fragmented, after every retry."""

    requested_bytes: int
    segment_bytes: int
    """What the last attempt asked the driver for."""
    stream: int
    limit_bytes: int
    """What the driver, or the memory fraction, allows in all."""
    allocated_bytes: int
    reserved_bytes: int
    """Still held after cached segments were returned."""
    cached_bytes: int
    """Held but not lent out: free parts of segments that something else keeps alive."""
    largest_cached_bytes: int
    event: int = -1
    """Position in the history."""

    @property
    def free_bytes(self) -> int:
        """What the driver could still give."""
        return max(0, self.limit_bytes - self.reserved_bytes)

    @property
    def is_fragmentation(self) -> bool:
        """The bytes were there, but not in one piece."""
        return self.cached_bytes + self.free_bytes >= self.requested_bytes

    def at(self, event: int) -> "OutOfMemory":
        """The same refusal with its position in the history."""
        return replace(self, event=event)

    def to_dict(self) -> dict[str, int | bool]:
        """The `oom` object of the JSON output."""
        return {**asdict(self), "free_bytes": self.free_bytes, "is_fragmentation": self.is_fragmentation}
