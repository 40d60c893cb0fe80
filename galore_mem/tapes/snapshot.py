"""torch's memory snapshots as Tapes, of every release since 2.0.

The formats have no version. What is looked for: `history` in blocks instead of `address` and `requested_size` (2.0),
`time_us` (2.2), `allocator_settings` (2.3), `external_annotations` (2.5), `compile_context` (2.7), `user_metadata`
(2.10), `pool_id` in trace entries (2.11), and bare lists of segments, as `torch.cuda.memory_snapshot()` returns them.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from galore_mem.tapes.checks import MOST_DEVICES, a_dict, a_list, an_int, refuse
from galore_mem.tapes.rebuild import Start, rebuild
from galore_mem.tapes.stacks import Names
from galore_mem.tapes.table import ACTION_CODES, FIRST_EFFECT, EventTable
from galore_mem.tapes.tape import DeviceTape, Mark, Tape
from galore_mem.tapes.trace import ACTIONS, CODES, FinalSegment, PoolNumbers, Trace, Traces, read_segments, read_trace

_GROWS = frozenset({CODES["segment_alloc"], CODES["segment_map"]})
_SHRINKS = frozenset({CODES["segment_free"], CODES["segment_unmap"]})
_ALLOC, _FREE_REQUESTED, _FREE_COMPLETED = CODES["alloc"], CODES["free_requested"], CODES["free_completed"]
_OF_BIRTHS = {name: attrgetter(field) for name, field in (("phase",) * 2, ("module", "path"), ("category",) * 2)}
"""Columns that allocations have, and what of a stack stands in them."""
_SNAPSHOT, _OOM = CODES["snapshot"], CODES["oom"]


def tape_from_snapshot(content: object) -> Tape:
    """A Tape from an unpickled snapshot, as `torch.cuda.memory._snapshot()` returns it or as `pickles.load` reads it.

    Raises:
        Refusal: it is not what torch writes.
    """
    if type(content) is list:
        content = {"segments": content}
    snapshot = a_dict(content, "the snapshot")
    pools = PoolNumbers()
    segments = read_segments(snapshot.get("segments", []), pools)
    traces = snapshot.get("device_traces", [])
    traces = traces if type(traces) is Traces else a_list(traces, "device_traces")
    marks = _annotations(snapshot.get("external_annotations", []))
    devices = []
    by_device: dict[int, list[FinalSegment]] = {}
    for segment in segments:
        by_device.setdefault(segment.device, []).append(segment)
    numbers = sorted({*by_device, *(number for number, trace in enumerate(traces) if trace)})
    if len(numbers) > MOST_DEVICES:
        refuse(f"it has {len(numbers)} devices")
    for device in numbers:
        trace = read_trace(traces[device] if device < len(traces) else [], pools)
        devices.append(_device(device, trace, by_device.get(device, []), marks.get(device, [])))
    return Tape(devices=tuple(devices), settings=_settings(snapshot, devices), source="snapshot")


def _device(device: int, trace: Trace, final: Sequence[FinalSegment], annotations: list[Mark]) -> DeviceTape:
    start = rebuild(trace, final)
    table, marks = _table(trace, start, _pools_by_address(trace, final))
    if trace.time_us and annotations:
        times = [table.number("time_us", row) or 0 for row in range(len(table))]
        marks += [_placed(mark, times) for mark in annotations]
    notes = []
    if start.contradictions:
        notes.append(f"{start.contradictions} entries contradict the final segments: some events were not recorded")
    if len(trace) and not final:
        notes.append("the file has no segments: the history is taken to begin with nothing held")
    return DeviceTape(
        device=device,
        events=table,
        initial=start.segments,
        marks=tuple(sorted(marks, key=lambda mark: mark.row)),
        history="final" if not len(trace) else "rebuilt" if start.segments else "complete",
        notes=tuple(notes),
    )


def _table(trace: Trace, start: Start, pools: "_Pools | None") -> tuple[EventTable, list[Mark]]:
    """Entries as rows: addresses become block numbers, the two halves of a plain free become one."""
    rows = _Rows(trace, pools)
    numbers = dict(start.numbers)
    actions, addresses = trace.action, trace.address
    following, released, last = len(numbers), 0, len(trace) - 1
    for row, action in enumerate(actions):
        if action in _SHRINKS:
            released += 1
        elif released and action != _SNAPSHOT:
            rows.add(row - 1, _release_kind(trace, row), 0)
            released = 0
        if action == _ALLOC:
            numbers[addresses[row]] = following
            rows.add(row, "alloc", following)
            following += 1
        elif action == _FREE_REQUESTED:
            address = addresses[row]
            known = numbers.get(address)
            if known is None:
                continue
            is_whole = row < last and actions[row + 1] == _FREE_COMPLETED and addresses[row + 1] == address
            if is_whole:
                del numbers[address]
            rows.add(row, "free" if is_whole else "free_requested", known)
        elif action == _FREE_COMPLETED:
            known = numbers.pop(addresses[row], None)
            if known is not None:
                rows.add(row, "free_completed", known)
        elif action == _SNAPSHOT:
            rows.marks.append(Mark(row=len(rows.entry), kind="snapshot"))
        else:
            if action == _OOM:
                rows.marks.append(Mark(row=len(rows.entry), kind="oom", value=addresses[row]))
            rows.add(row, ACTIONS[action], 0)
    if released:
        rows.add(last, _release_kind(trace, len(trace)), 0)
    return rows.table(), rows.marks


class _Rows:
    """Rows in the making: which entry each comes from, its action and its block."""

    def __init__(self, trace: Trace, pools: "_Pools | None") -> None:
        self.trace = trace
        self.pools = pools
        self.entry = array("q")
        self.action = array("B")
        self.block = array("q")
        self.marks: list[Mark] = []

    def add(self, entry: int, action: str, block: int) -> None:
        self.entry.append(entry)
        self.action.append(ACTION_CODES[action])
        self.block.append(block)

    def table(self) -> EventTable:
        """The finished columns."""
        trace, table, names = self.trace, EventTable(), self.trace.names()
        table.action, table.block = self.action, self.block
        table.size, table.stream = self._taken(trace.size), self._taken(trace.stream)
        if trace.pool:
            table.pool = self._taken(trace.pool)
        elif self.pools is not None:
            table.pool = array("q", map(self.pools.of, map(trace.address.__getitem__, self.entry)))
        else:
            table.pool = array("q", bytes(8 * len(self.entry)))
        if trace.time_us:
            table.known["time_us"] = self._taken(trace.time_us)
        self._add_texts(table, names)
        table.set_names(names.texts)
        table.known["address"] = array(
            "q",
            (
                trace.address[entry] if code >= FIRST_EFFECT else 0
                for entry, code in zip(self.entry, self.action, strict=True)
            ),
        )
        return table

    def _add_texts(self, table: EventTable, names: Names) -> None:
        """Of every row the place that asked; of allocations the pass and the way there; the program's own tag."""
        trace, stacks = self.trace, array("I", map(self.trace.stack.__getitem__, self.entry))
        sites = [names.of(stack.site) for stack in trace.stacks]
        if any(sites):
            table.known["operator"] = array("q", map(sites.__getitem__, stacks))
        for column, texts in _OF_BIRTHS.items() if trace.has_frames else ():
            numbers = [names.of(texts(stack)) for stack in trace.stacks]
            born = (code == ACTION_CODES["alloc"] for code in self.action)
            told = array("q", (numbers[stack] if is_born else 0 for stack, is_born in zip(stacks, born, strict=True)))
            if any(told):
                table.known[column] = told
        if any(trace.tag):
            tags = [names.of(tag) for tag in trace.tags]
            table.known["tag"] = array("q", (tags[trace.tag[entry]] for entry in self.entry))

    def _taken(self, column: "array[int]") -> "array[int]":
        return array("q", map(column.__getitem__, self.entry))


def _release_kind(trace: Trace, row: int) -> str:
    """Who returned the memory before entry `row`: the program, or the allocator under pressure.

    With stacks, `empty_cache` stands in them. Without, only what ends in an out-of-memory is certain.
    """
    entry = row - 1
    while entry > 0 and trace.action[entry] not in _SHRINKS:
        entry -= 1
    following = trace.action[row] if row < len(trace) else -1
    empties = trace.stacks[trace.stack[entry]].empties
    if empties == 1:
        return "empty_cache"
    if following == _OOM or (empties == 0 and following in _GROWS):
        return "release"
    return "empty_cache"


class _Pools:
    """Private pools by address, for traces whose entries do not name theirs."""

    def __init__(self, final: Sequence[FinalSegment]) -> None:
        ordered = sorted(final, key=lambda segment: segment.address)
        self._starts = [segment.address for segment in ordered]
        self._segments = ordered

    def of(self, address: int) -> int:
        """The pool of the final segment that holds an address."""
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return 0
        segment = self._segments[index]
        return segment.pool if address < segment.address + segment.size else 0


def _pools_by_address(trace: Trace, final: Sequence[FinalSegment]) -> _Pools | None:
    if trace.pool or not any(segment.pool for segment in final):
        return None
    return _Pools(final)


def _annotations(value: object) -> dict[int, list[Mark]]:
    """START and END marks by device; `row` is filled in once the events are known."""
    marks: dict[int, list[Mark]] = {}
    for entry in a_list(value, "external_annotations"):
        annotation = a_dict(entry, "an annotation")
        name, stage, time_us = annotation.get("name"), annotation.get("stage"), annotation.get("time_us")
        if type(name) is not str or stage not in ("START", "END") or type(time_us) is not int:
            continue
        kind = "start" if stage == "START" else "end"
        mark = Mark(row=0, kind=kind, name=name[:200], time_us=an_int(time_us, "a time"))
        marks.setdefault(an_int(annotation.get("device", 0), "a device"), []).append(mark)
    return marks


def _placed(mark: Mark, times: list[int]) -> Mark:
    assert mark.time_us is not None
    return Mark(row=bisect_left(times, mark.time_us), kind=mark.kind, name=mark.name, time_us=mark.time_us)


def _settings(snapshot: dict[Any, Any], devices: list[DeviceTape]) -> str:
    """The settings string: torch's own, or what its parsed values and the segments tell."""
    settings = snapshot.get("allocator_settings")
    if settings is not None:
        a_dict(settings, "allocator_settings")
        text = settings.get("PYTORCH_CUDA_ALLOC_CONF") or settings.get("PYTORCH_ALLOC_CONF")
        if type(text) is str and text:
            return text[:10_000]
        return _from_values(settings)
    return "expandable_segments:True" if any(_maps(device) for device in devices) else ""


def _maps(device: DeviceTape) -> bool:
    return any(segment.is_expandable for segment in device.initial) or any(
        row[0] == "segment_map" for row in device.events.rows()
    )


def _from_values(settings: dict[Any, Any]) -> str:
    parts = []
    split, threshold = settings.get("max_split_size"), settings.get("garbage_collection_threshold")
    if type(split) is int and 0 < split < 1 << 50:
        parts.append(f"max_split_size_mb:{split >> 20}")
    if type(threshold) is float and 0 < threshold < 1:
        parts.append(f"garbage_collection_threshold:{threshold}")
    if settings.get("expandable_segments") is True:
        parts.append("expandable_segments:True")
    divisions = settings.get("roundup_power2_divisions")
    if type(divisions) is dict:
        pairs = [(key, value) for key, value in divisions.items() if str(key).isdigit() and type(value) is int]
        if any(value > 1 for _, value in pairs):
            pairs.sort(key=lambda pair: int(pair[0]))
            parts.append(f"roundup_power2_divisions:[{','.join(f'{key}:{value}' for key, value in pairs)}]")
    return ",".join(parts)
