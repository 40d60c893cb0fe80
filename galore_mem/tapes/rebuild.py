"""Where a history began: the final segments, walked backwards through the trace.

torch's ring buffer drops the oldest entries without a word, and many recordings begin after the model was built. The
state at the end is known block by block; undoing every entry from the last to the first gives the state before the
first.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from galore_mem.tapes.tape import HeldBlock, HeldSegment
from galore_mem.tapes.trace import ACTIONS, FinalSegment, Trace

_SMALL_SEGMENT_BYTES = 2 << 20
_LARGE_PAGE_BYTES = 20 << 20


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
        self.stretches = _Stretches()
        self.contradictions = 0
        for segment in final:
            where = _Where(
                size=segment.size,
                stream=segment.stream,
                is_small=segment.is_small,
                pool=segment.pool,
                is_expandable=segment.is_expandable,
            )
            if segment.is_expandable:
                self.contradictions += not self.stretches.add(segment.address, where, join=False)
            else:
                self.segments[segment.address] = where
            for block in segment.blocks:
                self.blocks[block.address] = _Held(requested=block.requested, size=block.size, pending=block.pending)

    def undo(self, trace: Trace, row: int) -> None:
        action, address, size = ACTIONS[trace.action[row]], trace.address[row], trace.size[row]
        agrees = True
        if action == "alloc":
            agrees = self.blocks.pop(address, None) is not None
        elif action == "free_completed":
            agrees = address not in self.blocks
            self.blocks[address] = _Held(requested=size, size=0, pending=True)
        elif action == "free_requested":
            held = self.blocks.get(address)
            agrees = held is not None
            if held is not None:
                held.pending = False
        elif action == "segment_alloc":
            agrees = self.segments.pop(address, None) is not None
        elif action == "segment_free":
            agrees = size > 0 and address not in self.segments
            if agrees:
                self.segments[address] = _Where(
                    size=size,
                    stream=trace.stream[row],
                    is_small=size == _SMALL_SEGMENT_BYTES,  # large segments are of more than 10 MiB
                    pool=trace.pool[row] if trace.pool else 0,
                    is_expandable=False,
                )
        elif action == "segment_map":
            agrees = self.stretches.cut(address, size)
        elif action == "segment_unmap":
            is_small = bool(size % _LARGE_PAGE_BYTES)
            where = _Where(size=size, stream=trace.stream[row], is_small=is_small, pool=0, is_expandable=True)
            agrees = self.stretches.add(address, where)
        self.contradictions += not agrees

    def start(self) -> Start:
        whole = {**self.segments, **self.stretches.by_start}
        self.contradictions += len(self.segments) + len(self.stretches.by_start) - len(whole)
        addresses = sorted(whole)
        members: dict[int, list[int]] = {address: [] for address in addresses}
        for address in sorted(self.blocks):
            home = bisect_right(addresses, address) - 1
            if home >= 0 and address < addresses[home] + whole[addresses[home]].size:
                members[addresses[home]].append(address)
            else:
                self.contradictions += 1
        numbers: dict[int, int] = {}
        for address in addresses:
            for block in members[address]:
                numbers[block] = len(numbers)
        return Start(
            segments=tuple(self._segment(address, whole[address], members[address], numbers) for address in addresses),
            numbers=numbers,
            contradictions=self.contradictions,
        )

    def _segment(self, address: int, where: _Where, blocks: list[int], numbers: dict[int, int]) -> HeldSegment:
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
    """Mapped stretches of expandable ranges: disjoint, cut and joined in place."""

    def __init__(self) -> None:
        self.by_start: dict[int, _Where] = {}
        self._starts: list[int] = []

    def cut(self, address: int, size: int) -> bool:
        """Take [address, address + size) out of the stretch that holds it; False if none does."""
        index = bisect_right(self._starts, address) - 1
        if index < 0 or size <= 0:
            return False
        start = self._starts[index]
        where = self.by_start[start]
        end = start + where.size
        if address + size > end:
            return False
        self._drop(index)
        for begin, length in ((start, address - start), (address + size, end - address - size)):
            if length:
                self._put(begin, replace(where, size=length))
        return True

    def add(self, address: int, where: _Where, *, join: bool = True) -> bool:
        """Put a stretch in, joined with those it touches; False if it overlaps one or is empty."""
        size = where.size
        index = bisect_right(self._starts, address)
        before = self._starts[index - 1] if index else None
        after = self._starts[index] if index < len(self._starts) else None
        before_end = before + self.by_start[before].size if before is not None else 0
        if size <= 0 or (before is not None and before_end > address) or (after is not None and after < address + size):
            return False
        if join and after == address + size:
            where = self._drop(index)
            size += where.size
        if join and before is not None and before_end == address:
            where = self._drop(index - 1)
            address, size = before, size + where.size
        self._put(address, replace(where, size=size))
        return True

    def _put(self, start: int, where: _Where) -> None:
        self.by_start[start] = where
        self._starts.insert(bisect_right(self._starts, start), start)

    def _drop(self, index: int) -> _Where:
        return self.by_start.pop(self._starts.pop(index))
