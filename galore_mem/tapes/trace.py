"""The parts of a torch snapshot, checked and in columns: trace entries and segments."""

from dataclasses import dataclass, field
from typing import Any

from galore_mem.tapes.checks import INT64, a_dict, a_list, a_size, a_text, an_int, refuse
from galore_mem.tapes.stacks import Names, Stack, Stacks

ACTIONS = frozenset(
    {
        *("alloc", "free_requested", "free_completed", "segment_alloc", "segment_free", "segment_map"),
        *("segment_unmap", "snapshot", "oom"),
    }
)
PENDING = frozenset({"active_pending_free", "active_awaiting_free"})
"""torch's name of the state, and the one its documentation gives."""
_STATES = PENDING | {"active_allocated", "inactive"}


class PoolNumbers:
    """Private pools are pairs in torch; here the default pool is 0 and the others count from 1."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, int], int] = {(0, 0): 0}

    def of(self, value: object) -> int:
        """The number of a pool's pair."""
        if value is None:
            return 0
        if type(value) is not tuple or len(value) != 2:
            refuse("a pool is not a pair of numbers")
        number = self._numbers.get(value)
        if number is None:
            pair = (an_int(value[0], "a pool"), an_int(value[1], "a pool"))
            number = self._numbers.setdefault(pair, len(self._numbers))
        return number


@dataclass(slots=True, kw_only=True)
class Trace:
    """One device's trace entries."""

    names: Names = field(default_factory=Names)
    action: list[str] = field(default_factory=list)
    address: list[int] = field(default_factory=list)
    """Of `oom` entries: bytes the driver had left."""
    size: list[int] = field(default_factory=list)
    stream: list[int] = field(default_factory=list)
    pool: list[int] | None = None
    """None where the entries do not tell (before torch 2.11)."""
    time_us: list[int] | None = None
    """None before torch 2.2."""
    site: list[int] = field(default_factory=list)
    """Innermost Python frame outside torch, by number in `names`."""
    phase: list[int] = field(default_factory=list)
    """Of allocations, the pass of training that their stack tells of, by number in `names`."""
    path: list[int] = field(default_factory=list)
    """Of allocations, the program's own functions on the way to them, by number in `names`."""
    tag: list[int] = field(default_factory=list)
    """`user_metadata`, or the compiled region."""
    stack: list[int] = field(default_factory=list)
    """1 for stacks that come from `empty_cache`, 0 for others, -1 without one."""

    def __len__(self) -> int:
        """Entries."""
        return len(self.action)


def read_trace(value: object, pools: PoolNumbers) -> Trace:
    """Check one device's list of entries.

    Raises:
        Refusal: an entry is not what torch writes.
    """
    entries = a_list(value, "a device trace")
    trace = Trace()
    stacks = Stacks(trace.names)
    nowhere = Stack()
    unseen = Stack(phase=trace.names.of("backward") if any(map(_has_frames, entries)) else 0)
    for entry in entries:
        if type(entry) is not dict:
            a_dict(entry, "a trace entry")
        get = entry.get
        action = get("action")
        if type(action) is not str or action not in ACTIONS:
            refuse("a trace entry has no action" if action is None else f"a trace entry's action is {action!r:.40}")
        trace.action.append(action)
        trace.address.append(get("addr", 0) if action != "oom" else get("device_free", 0))
        trace.size.append(get("size"))
        trace.stream.append(get("stream", 0))
        frames = get("frames")
        stack = stacks.of(frames) if frames else unseen if action == "alloc" else nowhere
        trace.site.append(stack.site)
        trace.stack.append(stack.empties)
        trace.phase.append(stack.phase if action == "alloc" else 0)
        trace.path.append(stack.path if action == "alloc" else 0)
        metadata, compiled = get("user_metadata"), get("compile_context")
        plain = not metadata and (not compiled or compiled == "N/A")
        trace.tag.append(0 if plain else trace.names.of(_tag(metadata, compiled)))
    _check_numbers(trace)
    trace.time_us = _times(entries)
    if entries and all("pool_id" in entry for entry in entries):
        trace.pool = [pools.of(entry["pool_id"]) for entry in entries]
    return trace


def _has_frames(entry: object) -> bool:
    return type(entry) is dict and bool(entry.get("frames"))


def _check_numbers(trace: Trace) -> None:
    """Integers of 64 bits, sizes not negative; whole columns at once where they are what they should be."""
    for what, column in (("an address", trace.address), ("a size", trace.size), ("a stream", trace.stream)):
        if set(map(type, column)) <= {int}:
            low, high = min(column, default=0), max(column, default=0)
            if low >= -INT64 and high < INT64 and (low >= 0 or what != "a size"):
                continue
        check = a_size if what == "a size" else an_int
        column[:] = [check(value, what) for value in column]


def _times(entries: list[Any]) -> list[int] | None:
    times = [entry.get("time_us") for entry in entries]
    if not times or None in times:
        return None
    return [an_int(time, "a time") for time in times]


def _tag(metadata: object, compiled: object) -> str:
    if metadata and type(metadata) is str:
        return metadata[:200]
    return compiled[:200] if type(compiled) is str and compiled != "N/A" else ""


@dataclass(slots=True, kw_only=True)
class FinalBlock:
    """A block as it lay when the snapshot was taken."""

    address: int
    size: int
    requested: int
    pending: bool


@dataclass(slots=True, kw_only=True)
class FinalSegment:
    """A segment as it lay when the snapshot was taken."""

    device: int
    address: int
    size: int
    stream: int
    is_small: bool
    pool: int
    is_expandable: bool
    blocks: list[FinalBlock]
    """Those in use."""


def read_segments(value: object, pools: PoolNumbers) -> list[FinalSegment]:
    """Check the list of segments, of whichever torch release.

    Raises:
        Refusal: a segment or block is not what torch writes.
    """
    return [_segment(a_dict(entry, "a segment"), pools) for entry in a_list(value, "segments")]


def _segment(entry: dict[Any, Any], pools: PoolNumbers) -> FinalSegment:
    size = a_size(entry.get("total_size"), "a segment's size")
    address = an_int(entry.get("address"), "a segment's address")
    kind = a_text(entry.get("segment_type"), "a segment's type")
    blocks: list[FinalBlock] = []
    position = address
    for value in a_list(entry.get("blocks"), "a segment's blocks"):
        block = a_dict(value, "a block")
        block_size = a_size(block.get("size"), "a block's size")
        state = a_text(block.get("state"), "a block's state")
        if state not in _STATES:
            refuse(f"a block's state is {state!r:.40}")
        if block_size == 0:
            refuse("a block has no size")
        if state != "inactive":
            blocks.append(
                FinalBlock(
                    address=position,
                    size=block_size,
                    requested=min(_requested(block, block_size), block_size),
                    pending=state in PENDING,
                )
            )
        position += block_size
    if position != address + size:
        refuse("a segment's blocks do not fill it")
    return FinalSegment(
        device=a_size(entry.get("device", 0), "a segment's device"),
        address=address,
        size=size,
        stream=an_int(entry.get("stream", 0), "a stream"),
        is_small=kind == "small",
        pool=pools.of(entry.get("segment_pool_id")),
        is_expandable=entry.get("is_expandable") is True,
        blocks=blocks,
    )


def _requested(block: dict[Any, Any], size: int) -> int:
    """Requested bytes: `requested_size`, or in torch 2.0 the newest entry of `history`; else the block's size."""
    if "requested_size" in block:
        return a_size(block["requested_size"], "a block's request")
    history = block.get("history")
    if history:
        return a_size(a_dict(a_list(history, "a history")[0], "a history").get("real_size"), "a block's request")
    return size
