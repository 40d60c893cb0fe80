"""A history of allocations through the replica, event by event."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from estimators.allocator.device import DeviceAllocator
from estimators.allocator.layout import PlacedSegment, load, segment_map
from estimators.allocator.oom import OutOfMemory
from estimators.allocator.settings import DEFAULTS, AllocatorSettings
from profiles.errors import InputError

Event = tuple[str, object, int, int, int]
"""(action, block, bytes, stream, private pool).

`alloc` lends `bytes` under the name `block`; `free` gives it back; `free_requested` and `free_completed` are the two
halves of a free that waits for another stream; `record_stream` says that `stream` uses the block too; `empty_cache` and
`release` return cached memory (the program's call, and the allocator's own under pressure); `oom` is an allocation that
failed when recorded: it is tried again and given back at once, and never ends a run; `release_pool` ends a private
pool. Other actions are passed over.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Bytes after every event, one entry per event replayed."""

    live: "array[int]"
    """Requests rounded up to 512 B."""
    allocated: "array[int]"
    """Block sizes: unsplit remainders included."""
    active: "array[int]"
    """Allocated, and freed blocks that another stream may still use."""
    reserved: "array[int]"
    inactive_split: "array[int]"
    """Free parts of segments that are in use; expandable segments do not count, as in torch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragmentation:
    """How reserved memory was used at one event."""

    event: int
    reserved_bytes: int
    allocated_bytes: int
    live_bytes: int
    cached_bytes: int
    """Held, not lent."""
    largest_cached_bytes: int
    """The largest single piece of it: what could be lent without asking the driver."""
    inactive_split_bytes: int

    @property
    def unused_share(self) -> float:
        """Share of reserved memory that held no block."""
        return 1 - self.allocated_bytes / self.reserved_bytes if self.reserved_bytes else 0.0

    @property
    def remainder_bytes(self) -> int:
        """Unsplit rests and rounding inside allocated blocks."""
        return self.allocated_bytes - self.live_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What one device's allocator did with a history."""

    settings: AllocatorSettings
    series: Series
    start_reserved_bytes: int
    start_allocated_bytes: int
    ooms: tuple[OutOfMemory, ...]
    retries: int
    """Allocations that succeeded or failed only after cached memory was returned."""
    allocator: DeviceAllocator
    """Its state after the last event."""

    @property
    def events(self) -> int:
        """Events replayed: fewer than given when an out-of-memory ended the run."""
        return len(self.series.reserved)

    @property
    def oom(self) -> OutOfMemory | None:
        """The first refusal."""
        return self.ooms[0] if self.ooms else None

    @property
    def peak_live_bytes(self) -> int:
        """Largest live bytes after any event."""
        return max(self.series.live, default=self.allocator.live_bytes)

    @property
    def peak_allocated_bytes(self) -> int:
        """What `torch.cuda.max_memory_allocated` would say."""
        return max(self.start_allocated_bytes, max(self.series.allocated, default=0))

    @property
    def peak_reserved_bytes(self) -> int:
        """What `torch.cuda.max_memory_reserved` would say."""
        return max(self.start_reserved_bytes, max(self.series.reserved, default=0))

    @property
    def end_reserved_bytes(self) -> int:
        """Held after the last event."""
        return self.allocator.reserved_bytes

    @property
    def peak_event(self) -> int:
        """Of the events at which reserved memory was at its peak, the one that used most of it; -1 for the start."""
        peak, best, best_allocated = self.peak_reserved_bytes, -1, -1
        if self.start_reserved_bytes == peak:
            best_allocated = self.start_allocated_bytes
        for event, (reserved, allocated) in enumerate(zip(self.series.reserved, self.series.allocated, strict=True)):
            if reserved == peak and allocated > best_allocated:
                best, best_allocated = event, allocated
        return best

    @property
    def segments(self) -> tuple[PlacedSegment, ...]:
        """The segment map after the last event."""
        return segment_map(self.allocator)


def replay(
    events: Iterable[Event],
    settings: AllocatorSettings = DEFAULTS,
    *,
    initial: Sequence[PlacedSegment] = (),
    capacity_bytes: int | None = None,
    total_bytes: int | None = None,
    stop_at_oom: bool = True,
    segment_addresses: Iterable[tuple[int, int]] = (),
) -> Replayed:
    """Feed a device's history to the replica.

    Args:
        events: see `Event`.
        settings: how the allocator is set.
        initial: segments held before the first event.
        capacity_bytes: what the driver can give for segments; None is without end.
        total_bytes: the card's total memory (for memory fractions); `capacity_bytes` when None.
        stop_at_oom: end at the first refused `alloc`; otherwise its later frees are passed over.
        segment_addresses: (bytes, address) of the segments that the recording took, in order: see
            `Addresses.expect`.

    Raises:
        InputError: the events or the layout contradict themselves.

    >>> run = replay([("alloc", 1, 3 << 20, 0, 0), ("free", 1, 0, 0, 0)])
    >>> run.peak_allocated_bytes >> 20, run.peak_reserved_bytes >> 20
    (3, 20)
    """
    allocator = DeviceAllocator(settings, capacity_bytes=capacity_bytes, total_bytes=total_bytes)
    load(allocator, initial)
    allocator.addresses.expect(segment_addresses)
    start, start_allocated = allocator.reserved_bytes, allocator.allocated_bytes
    series = Series(
        live=array("q"), allocated=array("q"), active=array("q"), reserved=array("q"), inactive_split=array("q")
    )
    ooms = _run(allocator, events, series, stop_at_oom)
    return Replayed(
        settings=settings,
        series=series,
        start_reserved_bytes=start,
        start_allocated_bytes=start_allocated,
        ooms=tuple(ooms),
        retries=allocator.retries,
        allocator=allocator,
    )


def _run(allocator: DeviceAllocator, events: Iterable[Event], series: Series, stop_at_oom: bool) -> list[OutOfMemory]:
    alloc, free, blocks = allocator.alloc, allocator.free, allocator.blocks
    live, allocated, active = series.live.append, series.allocated.append, series.active.append
    reserved, inactive_split = series.reserved.append, series.inactive_split.append
    ooms: list[OutOfMemory] = []
    for action, block, size, stream, private_pool in events:
        if action == "free":
            free(block)
        elif action == "alloc":
            if block in blocks:
                raise InputError(f"block {block!r} is allocated twice", f"event {len(series.live)}")
            lent = alloc(block, size, stream, private_pool)
            if lent.__class__ is OutOfMemory:
                ooms.append(lent.at(len(series.live)))
                if stop_at_oom:
                    break
        elif action == "oom":
            tried = alloc(_Tried, size, stream, private_pool)
            if isinstance(tried, OutOfMemory):
                ooms.append(tried.at(len(series.live)))
        else:
            _rare(allocator, action, block, stream)
        live(allocator.live_bytes)
        allocated(allocator.allocated_bytes)
        active(allocator.active_bytes)
        reserved(allocator.reserved_bytes)
        inactive_split(allocator.inactive_split_bytes)
        if action == "oom":
            free(_Tried)
    return ooms


class _Tried:
    """The name under which a recorded failure is tried again."""


def _rare(allocator: DeviceAllocator, action: str, block: object, stream: int) -> None:
    if action == "free_requested":
        allocator.free_requested(block)
    elif action == "free_completed":
        allocator.free_completed(block)
    elif action == "record_stream":
        allocator.record_stream(block, stream)
    elif action in ("empty_cache", "release"):
        allocator.empty_cache()
    elif action == "release_pool" and isinstance(block, int):
        allocator.release_pool(block)


def segments_at(
    events: Iterable[Event],
    event: int,
    settings: AllocatorSettings = DEFAULTS,
    *,
    initial: Sequence[PlacedSegment] = (),
    capacity_bytes: int | None = None,
) -> tuple[PlacedSegment, ...]:
    """The segment map right after one event (-1: before the first)."""
    run = replay(islice(events, event + 1), settings, initial=initial, capacity_bytes=capacity_bytes)
    return run.segments


def fragmentation_at(
    events: Iterable[Event],
    event: int,
    settings: AllocatorSettings = DEFAULTS,
    *,
    initial: Sequence[PlacedSegment] = (),
    capacity_bytes: int | None = None,
    total_bytes: int | None = None,
) -> Fragmentation:
    """How reserved memory was used right after one event, e.g. `Replayed.peak_event`."""
    allocator = replay(
        islice(events, event + 1), settings, initial=initial, capacity_bytes=capacity_bytes, total_bytes=total_bytes
    ).allocator
    cached = [block.size for pool in allocator.pools for block in pool.by_key.values()]
    return Fragmentation(
        event=event,
        reserved_bytes=allocator.reserved_bytes,
        allocated_bytes=allocator.allocated_bytes,
        live_bytes=allocator.live_bytes,
        cached_bytes=sum(cached),
        largest_cached_bytes=max(cached, default=0),
        inactive_split_bytes=allocator.inactive_split_bytes,
    )
