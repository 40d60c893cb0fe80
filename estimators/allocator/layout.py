"""The segment map: what lies where, going in and coming out.

Going in, a recording that began late names the segments held at its start and the blocks in them; their sizes may be
unknown, only requests are then. Coming out, the map shows every block, free ones too, as torch's snapshots do.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from estimators.allocator.blocks import Block, ExpandableRange
from estimators.allocator.device import DeviceAllocator
from estimators.allocator.settings import MIN_BLOCK_BYTES, SMALL_BYTES, SMALL_SEGMENT_BYTES
from estimators.allocator.sizes import block_bytes, round_512
from profiles.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedBlock:
    """One block of a segment."""

    ident: object
    """The caller's name; None for free blocks."""
    offset: int
    """Bytes from the start of the segment."""
    size: int
    """0 where unknown (going in): it follows from the request."""
    requested: int
    pending: bool = False
    """Freed, but another stream may still use it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedSegment:
    """One segment, or one mapped stretch of an expandable range."""

    address: int
    size: int
    stream: int = 0
    is_small: bool = False
    private_pool: int = 0
    is_expandable: bool = False
    blocks: tuple[PlacedBlock, ...] = ()
    """By offset. Going in, only those in use; what they leave is free."""


def load(allocator: DeviceAllocator, segments: Sequence[PlacedSegment]) -> None:
    """Put a recorded starting layout into a fresh allocator.

    Native segments keep their addresses where they have one (new segments then come behind them); stretches of
    expandable ranges keep their distances.

    Raises:
        InputError: blocks overlap or leave their segment.
    """
    native = [segment for segment in segments if not segment.is_expandable]
    _check_disjoint(native)
    for segment in native:
        if segment.address:
            allocator.addresses.hold(segment.address, segment.size)
    for segment in native:
        pool = allocator._pool(segment.stream, segment.is_small, segment.private_pool)
        address = segment.address or allocator.addresses.rising(segment.size)
        _fill(allocator, segment, Block(pool, address, segment.size), None)
    stretches: dict[tuple[int, bool, int], list[PlacedSegment]] = {}
    for segment in segments:
        if segment.is_expandable:
            stretches.setdefault((segment.stream, segment.is_small, segment.private_pool), []).append(segment)
    for group in stretches.values():
        _load_ranges(allocator, sorted(group, key=lambda segment: segment.address))


def _check_disjoint(segments: list[PlacedSegment]) -> None:
    end = 0
    for segment in sorted(segments, key=lambda segment: segment.address):
        if segment.size < MIN_BLOCK_BYTES or segment.address < 0 or (segment.address and segment.address < end):
            raise InputError(
                f"a segment of {segment.size} bytes cannot be placed", "it is empty, overlaps another, or lies nowhere"
            )
        end = segment.address + segment.size if segment.address else end


def _load_ranges(allocator: DeviceAllocator, stretches: list[PlacedSegment]) -> None:
    """One pool's stretches, by address: those within reach of the first share its range."""
    rest: Block | None = None
    distance = 0
    for segment in stretches:
        pool = allocator._pool(segment.stream, segment.is_small, segment.private_pool)
        start = segment.address + distance
        if rest is None or not rest.address <= start <= rest.address + rest.size - segment.size:
            rest = allocator._reserve_range(pool)
            distance = rest.address - segment.address
            start = rest.address
        assert rest.range is not None
        page = SMALL_SEGMENT_BYTES if segment.is_small else allocator.settings.large_segment_size_bytes
        if (start - rest.range.address) % page or segment.size % page or segment.size > rest.size:
            raise InputError(
                f"an expandable segment of {segment.size} bytes cannot be placed",
                f"its pages are not {page} bytes",
                "name the recording's large_segment_size_mb in --alloc-conf",
            )
        del pool.unmapped[rest.address]
        hole = _cut(rest, start - rest.address)
        if hole is not None:
            pool.unmapped[hole.address] = hole
        stretch = _cut(rest, segment.size)
        assert stretch is not None
        stretch.mapped = True
        pool.unmapped[rest.address] = rest
        _fill(allocator, segment, stretch, rest.range)


def _cut(block: Block, size: int) -> Block | None:
    """Cut `size` bytes off the front of a block, as a block of their own."""
    if not size:
        return None
    front = Block(block.pool, block.address, size, block.range)
    front.mapped = block.mapped
    front.prev, front.next = block.prev, block
    if block.prev is not None:
        block.prev.next = front
    block.prev = front
    block.address += size
    block.size -= size
    return front


def _fill(allocator: DeviceAllocator, segment: PlacedSegment, whole: Block, range_: ExpandableRange | None) -> None:
    """Cut a segment into its blocks; what lies between them is free."""
    allocator.reserved_bytes += segment.size
    rest, position = whole, 0
    limits = [block.offset for block in segment.blocks[1:]] + [segment.size]
    for placed, limit in zip(segment.blocks, limits, strict=False):
        size = _size_of(allocator, segment, placed, limit)
        if placed.offset < position or placed.offset + size > limit or placed.offset % MIN_BLOCK_BYTES:
            raise InputError(
                f"a block of {size} bytes at offset {placed.offset} does not fit its segment of {segment.size} bytes"
            )
        gap = _cut(rest, placed.offset - position)
        if gap is not None:
            _cache(allocator, gap)
        position = placed.offset + size
        if position < segment.size:
            front = _cut(rest, size)
            assert front is not None
            _lend(allocator, front, placed)
        else:
            _lend(allocator, rest, placed)
    if position < segment.size:
        _cache(allocator, rest)


def _size_of(allocator: DeviceAllocator, segment: PlacedSegment, placed: PlacedBlock, limit: int) -> int:
    """A block's size where only its request is known.

    Native large blocks are split only when more than 1 MiB is left, and oversize ones never (`should_split`), so a gap
    behind one belongs to it.
    """
    size = placed.size or min(block_bytes(placed.requested, allocator.settings), limit - placed.offset)
    gap = limit - placed.offset - size
    if gap <= 0 or segment.is_small or segment.is_expandable or allocator.settings.expandable_segments:
        return size
    most = allocator.settings.max_split_size_bytes
    is_oversize = most is not None and not placed.size and size >= most
    return size + gap if gap <= SMALL_BYTES or is_oversize else size


def _cache(allocator: DeviceAllocator, block: Block) -> None:
    block.pool.insert(block)
    if block.range is None and (block.prev is not None or block.next is not None):
        allocator.inactive_split_bytes += block.size


def _lend(allocator: DeviceAllocator, block: Block, placed: PlacedBlock) -> None:
    if placed.ident in allocator.blocks:
        raise InputError(f"block {placed.ident!r} stands twice in the starting layout")
    block.in_use = True
    block.ident = placed.ident
    block.requested = placed.requested
    block.live = round_512(placed.requested)
    allocator.blocks[placed.ident] = block
    allocator.requested_bytes += block.requested
    allocator.active_bytes += block.size
    if placed.pending:
        block.pending = True
        allocator.pending[placed.ident] = block
    else:
        allocator.live_bytes += block.live
        allocator.allocated_bytes += block.size


def segment_map(allocator: DeviceAllocator) -> tuple[PlacedSegment, ...]:
    """Every segment and every block in it, by address (`snapshot`): expandable ranges as their mapped stretches."""
    cached = [block for pool in allocator.pools for block in pool.by_key.values()]
    heads = [
        block
        for block in (*allocator.blocks.values(), *cached)
        if block.prev is None or (block.range is not None and not block.prev.mapped)
    ]
    return tuple(_segment(head) for head in sorted(heads, key=lambda block: block.address))


def _segment(head: Block) -> PlacedSegment:
    members: list[Block] = []
    block: Block | None = head
    while block is not None and block.mapped:
        members.append(block)
        block = block.next
    return PlacedSegment(
        address=head.address,
        size=sum(member.size for member in members),
        stream=head.pool.stream,
        is_small=head.pool.is_small,
        private_pool=head.pool.private_id,
        is_expandable=head.range is not None,
        blocks=tuple(
            PlacedBlock(
                ident=member.ident,
                offset=member.address - head.address,
                size=member.size,
                requested=member.requested if member.in_use else 0,
                pending=member.pending,
            )
            for member in members
        ),
    )


def in_use(segments: Iterable[PlacedSegment]) -> tuple[PlacedSegment, ...]:
    """The same map with free blocks left out: a starting layout for another allocator."""
    from dataclasses import replace

    return tuple(
        replace(segment, blocks=tuple(block for block in segment.blocks if block.ident is not None))
        for segment in segments
    )
