"""Where a history began: the final segments, walked backwards through the trace.

torch's ring buffer drops the oldest entries without a word, and many recordings begin after the model was built. The
state at the end is known block by block; undoing every entry from the last to the first gives the state before the
first.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from galore_mem.tapes.tape import HeldBlock, HeldSegment
from galore_mem.tapes.trace import FinalSegment, Trace

_SMALL_SEGMENT_BYTES = 2 << 20


@dataclass(slots=True, kw_only=True)
class _Held:
    requested: int
    size: int
    pending: bool


@dataclass(slots=True, kw_only=True)
class _Where:
    size: int
    stream: int
    is_small: bool
    pool: int
    is_expandable: bool


@dataclass(slots=True, kw_only=True)
class Start:
    """The state before a trace's first entry."""

    segments: tuple[HeldSegment, ...]
    numbers: dict[int, int] = field(default_factory=dict)
    """Block number by address, of the blocks in use."""
    contradictions: int = 0
    """Entries that the final segments or later entries contradict."""


def rebuild(trace: Trace, final: Sequence[FinalSegment]) -> Start:
    """Undo a trace.

    Without final segments (some tools drop them) the trace is taken to be complete.
    """
    if not final:
        return Start(segments=())
    walk = _Walk(final)
    for row in range(len(trace) - 1, -1, -1):
        walk.undo(trace, row)
    return walk.start()


class _Walk:
    def __init__(self, final: Sequence[FinalSegment]) -> None:
        self.blocks: dict[int, _Held] = {}
        self.segments: dict[int, _Where] = {}
        self.contradictions = 0
        for segment in final:
            self.segments[segment.address] = _Where(
                size=segment.size,
                stream=segment.stream,
                is_small=segment.is_small,
                pool=segment.pool,
                is_expandable=segment.is_expandable,
            )
            for block in segment.blocks:
                self.blocks[block.address] = _Held(requested=block.requested, size=block.size, pending=block.pending)
        self.stretches = _Stretches(self.segments)

    def undo(self, trace: Trace, row: int) -> None:
        action, address, size = trace.action[row], trace.address[row], trace.size[row]
        if action == "alloc":
            if self.blocks.pop(address, None) is None:
                self.contradictions += 1
        elif action == "free_completed":
            if address in self.blocks:
                self.contradictions += 1
            self.blocks[address] = _Held(requested=size, size=0, pending=True)
        elif action == "free_requested":
            held = self.blocks.get(address)
            if held is None:
                self.contradictions += 1
            else:
                held.pending = False
        elif action == "segment_alloc":
            if self.segments.pop(address, None) is None:
                self.contradictions += 1
        elif action == "segment_free":
            self.segments[address] = _Where(
                size=size,
                stream=trace.stream[row],
                is_small=size == _SMALL_SEGMENT_BYTES,  # large segments are of more than 10 MiB
                pool=trace.pool[row] if trace.pool is not None else 0,
                is_expandable=False,
            )
        elif action == "segment_map":
            if not self.stretches.cut(address, size):
                self.contradictions += 1
        elif action == "segment_unmap":
            self.stretches.add(address, size, trace.stream[row])

    def start(self) -> Start:
        addresses = sorted(self.segments)
        members: dict[int, list[int]] = {address: [] for address in addresses}
        for address in sorted(self.blocks):
            home = bisect_right(addresses, address) - 1
            if home >= 0 and address < addresses[home] + self.segments[addresses[home]].size:
                members[addresses[home]].append(address)
            else:
                self.contradictions += 1
        numbers: dict[int, int] = {}
        for address in addresses:
            for block in members[address]:
                numbers[block] = len(numbers)
        return Start(
            segments=tuple(self._segment(address, members[address], numbers) for address in addresses),
            numbers=numbers,
            contradictions=self.contradictions,
        )

    def _segment(self, address: int, blocks: list[int], numbers: dict[int, int]) -> HeldSegment:
        where = self.segments[address]
        return HeldSegment(
            address=address,
            size=where.size,
            stream=where.stream,
            is_small=where.is_small,
            pool=where.pool,
            is_expandable=where.is_expandable,
            blocks=tuple(
                HeldBlock(
                    block=numbers[block],
                    offset=block - address,
                    size=self.blocks[block].size,
                    requested=self.blocks[block].requested,
                    pending=self.blocks[block].pending,
                )
                for block in blocks
            ),
        )


class _Stretches:
    """Mapped stretches of expandable ranges, cut and joined in place."""

    def __init__(self, segments: dict[int, _Where]) -> None:
        self._segments = segments
        self._starts = sorted(address for address, where in segments.items() if where.is_expandable)
        self._gone: dict[int, _Where] = {}

    def cut(self, address: int, size: int) -> bool:
        """Take [address, address + size) out of the stretch that holds it."""
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return False
        start = self._starts[index]
        where = self._segments[start]
        if address + size > start + where.size:
            return False
        del self._segments[start], self._starts[index]
        self._gone[address] = where
        self._put(address + size, start + where.size - address - size, where)
        self._put(start, address - start, where)
        return True

    def _put(self, address: int, size: int, like: _Where) -> None:
        if size <= 0:
            return
        self._segments[address] = _Where(
            size=size, stream=like.stream, is_small=like.is_small, pool=like.pool, is_expandable=True
        )
        self._starts.insert(bisect_right(self._starts, address), address)

    def add(self, address: int, size: int, stream: int) -> None:
        """Put [address, address + size) back, joined with the stretches it touches."""
        index = bisect_right(self._starts, address)
        before = self._starts[index - 1] if index else None
        after = self._starts[index] if index < len(self._starts) else None
        like = _Where(size=size, stream=stream, is_small=bool(size % (20 << 20)), pool=0, is_expandable=True)
        if after is not None and after == address + size:
            like = self._segments.pop(after)
            size += like.size
            del self._starts[index]
        if before is not None and before + self._segments[before].size == address:
            like = self._segments.pop(before)
            address, size = before, size + like.size
            del self._starts[index - 1]
        self._put(address, size, like)
