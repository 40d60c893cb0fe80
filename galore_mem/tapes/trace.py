"""The parts of a torch snapshot, checked and in columns: trace entries and segments."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from galore_mem.tapes.checks import a_dict, a_list, a_size, a_text, an_int, refuse
from galore_mem.tapes.stacks import NOWHERE, UNSEEN, Names, Stack, Stacks

ACTIONS = (
    *("alloc", "free_requested", "free_completed", "segment_alloc", "segment_free", "segment_map"),
    *("segment_unmap", "snapshot", "oom"),
)
CODES = {action: code for code, action in enumerate(ACTIONS)}
ALLOC, OOM = CODES["alloc"], CODES["oom"]
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


class Trace:
    """One device's trace entries, in columns.

    Attributes:
        action: positions in `ACTIONS`.
        address: of `oom` entries, bytes that the driver had left.
        size: bytes.
        stream: the stream's handle.
        time_us: empty where an entry does not tell (before torch 2.2).
        pool: private pools by number (while it is read, positions in `pools`); empty where an entry does not tell
            (before torch 2.11).
        pools: as torch writes them.
        stack: positions in `stacks`.
        stacks: in the order in which they were met.
        tag: positions in `tags`: `user_metadata`, or the compiled region.
        tags: in the order in which they were met.
    """

    def __init__(self) -> None:
        self.action = array("B")
        self.address, self.size, self.stream = array("q"), array("q"), array("q")
        self.time_us = array("q")
        self.pool = array("q")
        self.pools: list[object] = []
        self.stack = array("I")
        self.stacks = [NOWHERE, UNSEEN]
        self.tag = array("I")
        self.tags = [""]
        self.has_frames = False
        self._shared = Stacks()
        self._stack_numbers = {NOWHERE: 0, UNSEEN: 1}
        self._tag_numbers = {"": 0}
        self._pool_numbers: dict[object, int] = {}
        self._met: list[Stack | str] = []

    def __len__(self) -> int:
        """Entries."""
        return len(self.action)

    def add(self, entries: Sequence[object]) -> None:
        """Check entries as torch writes them, and keep what they tell.

        Raises:
            Refusal: one is something else.
        """
        checked = [a_dict(entry, "a trace entry") for entry in entries]
        action = array("B", (action_code(entry.get("action")) for entry in checked))
        where = ("device_free" if code == OOM else "addr" for code in action)
        addresses = (entry.get(key, 0) for entry, key in zip(checked, where, strict=True))
        times = [entry.get("time_us") for entry in checked]
        self.extend(
            action,
            address=array("q", (an_int(address, "an address") for address in addresses)),
            size=array("q", (a_size(entry.get("size"), "a size") for entry in checked)),
            stream=array("q", (an_int(entry.get("stream", 0), "a stream") for entry in checked)),
            time_us=None if None in times else array("q", (an_int(time, "a time") for time in times)),
            frames=(entry.get("frames") for entry in checked),
            metadata=(entry.get("user_metadata") for entry in checked),
            compiled=(entry.get("compile_context") for entry in checked),
            pools=[entry["pool_id"] for entry in checked] if all("pool_id" in entry for entry in checked) else None,
        )

    def extend(
        self,
        action: "array[int]",
        *,
        address: "array[int]",
        size: "array[int]",
        stream: "array[int]",
        time_us: "array[int] | None",
        frames: Iterable[object],
        metadata: Iterable[object],
        compiled: Iterable[object],
        pools: Iterable[object] | None,
    ) -> None:
        """Add entries by column; None for what at least one of them does not tell.

        Raises:
            Refusal: a value is not what torch writes.
        """
        if min(size, default=0) < 0:
            refuse("a size is negative")
        before = len(self.action)
        self.action.extend(action)
        self.address.extend(address)
        self.size.extend(size)
        self.stream.extend(stream)
        if time_us is None:
            self.time_us = array("q")
        elif len(self.time_us) == before:
            self.time_us.extend(time_us)
        if pools is None:
            self.pool = array("q")
        elif len(self.pool) == before:
            self.pool.extend(map(self._pool_number, pools))
        for code, found, tag, region in zip(action, frames, metadata, compiled, strict=True):
            number = self._stack_numbers.get(found) if type(found) is Stack else None
            if number is None:
                number = self._stack_number(found) if found else int(code == ALLOC)
            self.stack.append(number)
            self.tag.append(self._tag_number(tag, region) if tag or (region and region != "N/A") else 0)

    def _stack_number(self, frames: object) -> int:
        self.has_frames = True
        stack = self._shared.of(frames)
        number = self._stack_numbers.get(stack)
        if number is None:
            number = self._stack_numbers[stack] = len(self.stacks)
            self.stacks.append(stack)
            self._met.append(stack)
        return number

    def _tag_number(self, metadata: object, compiled: object) -> int:
        tag = _tag(metadata, compiled)
        number = self._tag_numbers.get(tag)
        if number is None:
            number = self._tag_numbers[tag] = len(self.tags)
            self.tags.append(tag)
            self._met.append(tag)
        return number

    def _pool_number(self, pool: object) -> int:
        if pool is not None and type(pool) is not tuple:
            refuse("a pool is not a pair of numbers")
        number = self._pool_numbers.get(pool)
        if number is None:
            number = self._pool_numbers[pool] = len(self.pools)
            self.pools.append(pool)
        return number

    def names(self) -> Names:
        """The texts of its stacks and tags, numbered in the order in which they were met."""
        names = Names()
        if self.has_frames:
            names.of(UNSEEN.phase)
        for met in self._met:
            for text in (met,) if isinstance(met, str) else (met.site, met.path, met.phase):
                names.of(text)
        return names


class Traces(list[Any]):
    """The traces of a snapshot's devices, where they were read into columns at once."""


def read_trace(value: object, pools: PoolNumbers) -> Trace:
    """Check one device's list of entries, or take its trace where it is one already.

    Raises:
        Refusal: an entry is not what torch writes.
    """
    trace = value if type(value) is Trace else Trace()
    if trace is not value:
        trace.add(a_list(value, "a device trace"))
    numbers = [pools.of(pool) for pool in (trace.pools if trace.pool else ())]
    trace.pool = array("q", map(numbers.__getitem__, trace.pool))
    return trace


def action_code(action: object) -> int:
    """The position of an entry's action in `ACTIONS`.

    Raises:
        Refusal: it is none that torch writes.
    """
    code = CODES.get(action) if type(action) is str else None
    if code is None:
        refuse("a trace entry has no action" if action is None else f"a trace entry's action is {action!r:.40}")
    return code


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
