"""The Tape: an ordered history of allocations, whoever recorded it.

Tracing on fake tensors, recording on a CPU, profiling on a GPU and reading a snapshot all end here, and every report,
replay and comparison begins here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from galore_mem.tapes.table import FIRST_EFFECT, EventTable

History = Literal["complete", "rebuilt", "final"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBlock:
    """A block in use when the recording began."""

    block: int
    offset: int
    """Bytes from the start of its segment."""
    size: int
    """Block size; 0 where only the request is known."""
    requested: int
    pending: bool = False
    """Freed, but another stream may still use it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSegment:
    """A segment (or a mapped stretch of an expandable range) held when the recording began."""

    address: int
    size: int
    stream: int = 0
    is_small: bool = False
    pool: int = 0
    is_expandable: bool = False
    blocks: tuple[HeldBlock, ...] = ()
    """By offset; what they leave is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something that happened between two events."""

    row: int
    """The event it stands before; the number of events when it stands after the last."""
    kind: str
    """`iteration`, `phase`, `moment` (the window of a phase, named after the peak it may hold), `start` and `end` of an
    annotation, `snapshot`, `oom`."""
    name: str = ""
    time_us: int | None = None
    value: int | None = None
    """`oom`: bytes the driver had left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTape:
    """One device's history."""

    device: int = 0
    events: EventTable
    initial: tuple[HeldSegment, ...] = ()
    marks: tuple[Mark, ...] = ()
    """By row."""
    history: History = "complete"
    """`complete` from the first allocation; `rebuilt` when it began late and the start was worked out backwards from
    the
    final segments; `final` when there are segments but no events."""
    total_bytes: int | None = None
    """The card's total memory, where known."""
    notes: tuple[str, ...] = ()
    """What could not be read or did not add up."""

    @property
    def start_reserved_bytes(self) -> int:
        """Held before the first event."""
        return sum(segment.size for segment in self.initial)

    @property
    def has_effects(self) -> bool:
        """Whether a real allocator's segments were recorded, to compare with."""
        return bool(self.initial) or any(code >= FIRST_EFFECT for code in self.events.action)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tape:
    """Histories of one process, with what is known of it."""

    devices: tuple[DeviceTape, ...]
    settings: str = ""
    """As in PYTORCH_CUDA_ALLOC_CONF, when it was recorded."""
    source: Literal["traced", "replayed", "measured", "snapshot", "unknown"] = "unknown"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Workload, environment, origin, licence: plain JSON values."""
