"""A history with addresses: what a snapshot of the replica would show."""

from collections.abc import Iterable, Sequence

from estimators.allocator.device import DeviceAllocator
from estimators.allocator.layout import PlacedSegment, load, segment_map
from estimators.allocator.oom import OutOfMemory
from estimators.allocator.replay import Event
from estimators.allocator.settings import DEFAULTS, AllocatorSettings

PlacedEvent = tuple[str, int, int, int, int, int]
"""(action in torch's words, address, bytes, stream, private pool, position of the event that caused it)."""


def place(
    events: Iterable[Event],
    settings: AllocatorSettings = DEFAULTS,
    *,
    initial: Sequence[PlacedSegment] = (),
    capacity_bytes: int | None = None,
) -> tuple[list[PlacedEvent], tuple[PlacedSegment, ...]]:
    """Replay a history and write down every address.

    Returns the trace entries torch would have recorded, and the segment map at the end.
    """
    allocator = DeviceAllocator(settings, capacity_bytes=capacity_bytes)
    load(allocator, initial)
    journal = allocator.journal = []
    placed: list[PlacedEvent] = []
    for position, event in enumerate(events):
        action, ident, size, stream, private_pool = event
        after = _step(allocator, action, ident, size, stream, private_pool)
        placed += [(*entry, private_pool, position) for entry in journal]
        placed += [(kind, address, amount, stream_, pool, position) for kind, address, amount, stream_, pool in after]
        journal.clear()
    return placed, segment_map(allocator)


def _step(
    allocator: DeviceAllocator, action: str, ident: object, size: int, stream: int, private_pool: int
) -> list[tuple[str, int, int, int, int]]:
    """Do one event; what torch records of it, after what the allocator did on its own."""
    if action in ("alloc", "oom"):
        lent = allocator.alloc(ident if action == "alloc" else place, size, stream, private_pool)
        if isinstance(lent, OutOfMemory):
            return [("oom", lent.free_bytes, size, stream, private_pool)]
        if action == "oom":
            allocator.free(place)
            return []
        return [("alloc", lent.address, size, stream, private_pool)]
    block = allocator.blocks.get(ident)
    if block is None or action not in ("free", "free_requested", "free_completed", "record_stream"):
        if action in ("empty_cache", "release"):
            allocator.empty_cache()
        elif action == "release_pool" and isinstance(ident, int):
            allocator.release_pool(ident)
        return []
    if action == "record_stream":
        allocator.record_stream(ident, stream)
        return []
    where = (block.address, block.requested, block.pool.stream, block.pool.private_id)
    was_pending = block.pending
    getattr(allocator, action)(ident)
    kinds = ["free_requested"] if action != "free_completed" and not was_pending else []
    if ident not in allocator.blocks:
        kinds.append("free_completed")
    return [(kind, *where) for kind in kinds]
