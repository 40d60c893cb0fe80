"""A Tape as a snapshot that pytorch.org/memory_viz opens.

The page needs an address for every block, which a Tape need not have: whoever writes a snapshot gives the history with
addresses (`estimators.allocator.placed` makes one for any Tape). Protocol 4: the page's own reader refuses 5.
"""

import os
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from galore_mem.tapes.atomic import write_bytes
from galore_mem.tapes.table import EventTable
from galore_mem.tapes.tape import HeldSegment, Mark, Tape

PlacedEvent = tuple[str, int, int, int, int, int]
"""(action in torch's words, address, bytes, stream, private pool, row of the Tape's causes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One device's history with addresses, and its segments at the end."""

    events: Sequence[PlacedEvent]
    segments: Sequence[HeldSegment]


def write_snapshot(path: str | os.PathLike[str], tape: Tape, placements: Sequence[Placement]) -> None:
    """Write a snapshot, atomically.

    Args:
        path: the file; `.pickle` is what the page expects.
        tape: what was recorded.
        placements: one per device of the Tape, in order.

    Raises:
        UsageError: the file cannot be written.
    """
    write_bytes(path, pickle.dumps(snapshot_dict(tape, placements), protocol=4))


def snapshot_dict(tape: Tape, placements: Sequence[Placement]) -> dict[str, Any]:
    """The snapshot as torch's `_snapshot()` returns it."""
    traces: list[list[dict[str, Any]]] = [[] for _ in range(max((d.device for d in tape.devices), default=-1) + 1)]
    segments: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for device, placement in zip(tape.devices, placements, strict=True):
        causes = device.events.cause_rows()
        frames = _Frames(device.events)
        for action, address, size, stream, pool, cause in placement.events:
            row = causes[cause]
            entry: dict[str, Any] = {
                "action": action,
                "device_free" if action == "oom" else "addr": address,
                "size": size,
                "stream": stream,
                "pool_id": (0, pool),
                "time_us": device.events.number("time_us", row) or cause,
                "frames": frames.of(row),
            }
            traces[device.device].append(entry)
        segments += [_segment_dict(device.device, segment) for segment in placement.segments]
        annotations += _annotations(device.device, device.marks)
    return {
        "segments": segments,
        "device_traces": traces,
        "allocator_settings": {"PYTORCH_CUDA_ALLOC_CONF": tape.settings},
        "external_annotations": annotations,
    }


class _Frames:
    """What is known of an event, as the stack that the page shows; equal ones are shared."""

    def __init__(self, table: EventTable) -> None:
        self._table = table
        self._made: dict[tuple[str, ...], list[dict[str, Any]]] = {}

    def of(self, row: int) -> list[dict[str, Any]]:
        table = self._table
        if not table.known:
            return []
        texts = tuple(table.text(name, row) for name in ("operator", "module", "category", "phase"))
        if texts not in self._made:
            operator, module, category, phase = texts
            pairs = [(operator, module), (category, "category"), (phase, "phase")]
            self._made[texts] = [{"name": name, "filename": file, "line": 0} for name, file in pairs if name]
        return self._made[texts]


def _segment_dict(device: int, segment: HeldSegment) -> dict[str, Any]:
    blocks = list(_blocks(segment))
    allocated = sum(block["size"] for block in blocks if block["state"] == "active_allocated")
    waiting = sum(block["size"] for block in blocks if block["state"] == "active_pending_free")
    return {
        "device": device,
        "address": segment.address,
        "total_size": segment.size,
        "allocated_size": allocated,
        "active_size": allocated + waiting,
        "requested_size": sum(block["requested_size"] for block in blocks),
        "stream": segment.stream,
        "segment_type": "small" if segment.is_small else "large",
        "segment_pool_id": (0, segment.pool),
        "is_expandable": segment.is_expandable,
        "frames": [],
        "blocks": blocks,
    }


def _blocks(segment: HeldSegment) -> Iterable[dict[str, Any]]:
    position = 0
    for held in segment.blocks:
        if held.offset > position:
            yield _block(segment.address + position, held.offset - position, 0, "inactive")
        state = "active_pending_free" if held.pending else "active_allocated"
        yield _block(segment.address + held.offset, held.size, held.requested, state)
        position = held.offset + held.size
    if position < segment.size:
        yield _block(segment.address + position, segment.size - position, 0, "inactive")


def _block(address: int, size: int, requested: int, state: str) -> dict[str, Any]:
    return {"address": address, "size": size, "requested_size": requested, "state": state, "frames": []}


def _annotations(device: int, marks: Sequence[Mark]) -> list[dict[str, Any]]:
    return [
        {
            "name": mark.name,
            "stage": "START" if mark.kind == "start" else "END",
            "device": device,
            "time_us": mark.time_us,
        }
        for mark in marks
        if mark.kind in ("start", "end") and mark.time_us is not None
    ]
