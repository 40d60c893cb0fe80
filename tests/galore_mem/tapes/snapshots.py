"""Snapshots as every release of torch writes them, made from the replica's own runs."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from estimators.allocator.layout import PlacedSegment
from estimators.allocator.placed import place
from estimators.allocator.replay import Event
from estimators.allocator.settings import DEFAULTS, AllocatorSettings
from galore_mem.answers.histories import held_segment
from galore_mem.tapes.memory_viz import Placement, snapshot_dict
from galore_mem.tapes.table import EventTable
from galore_mem.tapes.tape import DeviceTape, Tape

MIB = 1 << 20
Snapshot = dict[str, Any]


def program(seed: int = 0, length: int = 400, streams: Sequence[int] = (0,)) -> list[Event]:
    """Allocations and frees of a made-up training run, each block named once."""
    rng = Random(seed)
    events: list[Event] = []
    live: list[int] = []
    for name in range(length):
        if live and rng.random() < 0.45:
            events.append(("free", live.pop(rng.randrange(len(live))), 0, 0, 0))
        elif rng.random() < 0.02:
            events.append(("empty_cache", 0, 0, 0, 0))
        else:
            size = rng.choice([rng.randint(1, 4096), rng.randint(1, 2 * MIB), rng.randint(MIB, 40 * MIB)])
            events.append(("alloc", name, size, rng.choice(streams), 0))
            live.append(name)
    return events


def tape_of(events: Sequence[Event], device: int = 0, settings: str = "") -> Tape:
    table = EventTable()
    for time, (action, block, size, stream, pool) in enumerate(events):
        assert isinstance(block, int)
        table.append(action, block, size, stream, pool, time_us=1_000_000 + time, operator=f"op{time % 7}")
    return Tape(devices=(DeviceTape(device=device, events=table),), settings=settings, source="traced")


def snapshot(
    events: Sequence[Event], how: AllocatorSettings = DEFAULTS, *, device: int = 0, capacity: int | None = None
) -> Snapshot:
    """A snapshot of the newest kind."""
    placed, segments = place(events, how, capacity_bytes=capacity)
    placement = Placement(events=placed, segments=[held_segment(segment) for segment in segments])
    made = snapshot_dict(tape_of(events, device, how.text), [placement])
    for trace in made["device_traces"]:
        for entry in trace:
            entry["compile_context"] = "N/A"
            entry["user_metadata"] = ""
    return made


def segments_of(events: Sequence[Event], how: AllocatorSettings = DEFAULTS) -> tuple[PlacedSegment, ...]:
    return place(events, how)[1]


def _without(made: Snapshot, *keys: str) -> Snapshot:
    traces = [[{k: v for k, v in e.items() if k not in keys} for e in trace] for trace in made["device_traces"]]
    return {**{key: value for key, value in made.items() if key not in keys}, "device_traces": traces}


def as_torch_2_10(made: Snapshot) -> Snapshot:
    return _without(made, "pool_id")


def as_torch_2_7(made: Snapshot) -> Snapshot:
    return _without(as_torch_2_10(made), "user_metadata")


def as_torch_2_5(made: Snapshot) -> Snapshot:
    return _without(as_torch_2_7(made), "compile_context")


def as_torch_2_3(made: Snapshot) -> Snapshot:
    return _without(as_torch_2_5(made), "external_annotations")


def as_torch_2_2(made: Snapshot) -> Snapshot:
    return _without(as_torch_2_3(made), "allocator_settings")


def as_torch_2_1(made: Snapshot) -> Snapshot:
    return _without(as_torch_2_2(made), "time_us")


def as_torch_2_0(made: Snapshot) -> Snapshot:
    """Blocks have neither address nor requested size, but the history of what was allocated in them."""
    old = as_torch_2_1(made)
    segments = []
    for segment in old["segments"]:
        blocks = []
        for block in segment["blocks"]:
            kept = {"size": block["size"], "state": block["state"]}
            if block["state"] != "inactive":
                kept["history"] = [{"addr": block["address"], "real_size": block["requested_size"], "frames": []}]
            blocks.append(kept)
        dropped = ("segment_pool_id", "is_expandable", "requested_size", "frames")
        segments.append({**{k: v for k, v in segment.items() if k not in dropped}, "blocks": blocks})
    return {**old, "segments": segments}


ERAS: dict[str, Callable[[Snapshot], Snapshot]] = {
    "2.11": dict,
    "2.10": as_torch_2_10,
    "2.7": as_torch_2_7,
    "2.5": as_torch_2_5,
    "2.3": as_torch_2_3,
    "2.2": as_torch_2_2,
    "2.1": as_torch_2_1,
    "2.0": as_torch_2_0,
}


def started_late(made: Snapshot, dropped: int) -> Snapshot:
    """The same snapshot when the ring buffer forgot its first entries."""
    return {**made, "device_traces": [trace[dropped:] for trace in made["device_traces"]]}


def without_frames(made: Snapshot) -> Snapshot:
    return _without(made, "frames")
