"""Snapshots of every era, read back into the history they were made from."""

import pickle
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.allocator.device import DeviceAllocator
from estimators.allocator.layout import PlacedSegment, load, segment_map
from estimators.allocator.parse import parse_settings
from estimators.allocator.replay import Event, replay
from estimators.allocator.settings import DEFAULTS, AllocatorSettings
from galore_mem.answers.histories import placed_segment
from galore_mem.answers.replay import replay_tape
from galore_mem.tapes.recording import read_recording, recording_from_bytes
from galore_mem.tapes.snapshot import tape_from_snapshot
from galore_mem.tapes.tape import DeviceTape, Tape
from tests.galore_mem.tapes import snapshots
from tests.galore_mem.tapes.snapshots import ERAS, MIB, Snapshot

SETTINGS = [
    "",
    "expandable_segments:True",
    "max_split_size_mb:32",
    "roundup_power2_divisions:4",
    "large_segment_size_mb:64",
    "roundup_power2_divisions:[1:2,4:8,>:1],max_split_size_mb:64",
]


def through_pickle(made: object, protocol: int = 4) -> Tape:
    return recording_from_bytes(pickle.dumps(made, protocol=protocol))


def only(tape: Tape) -> DeviceTape:
    (device,) = tape.devices
    return device


def shape(segments: tuple[PlacedSegment, ...]) -> list[object]:
    """A segment map without names and addresses."""
    return [
        (
            (segment.size, segment.stream, segment.is_small, segment.private_pool, segment.is_expandable),
            [(block.offset, block.size, block.pending) for block in segment.blocks],
        )
        for segment in segments
    ]


def agrees(tape: Tape, how: AllocatorSettings) -> None:
    """Recorded and replayed reserved bytes are equal after every event."""
    for device in tape.devices:
        run = replay(device.events.causes(), how, initial=[placed_segment(segment) for segment in device.initial])
        assert list(run.series.reserved) == list(device.events.reserved_after_causes(device.start_reserved_bytes))


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_every_era_gives_the_history_back(era: str, protocol: int) -> None:
    events = snapshots.program(seed=1)
    made = ERAS[era](snapshots.snapshot(events))
    device = only(through_pickle(made, protocol))
    assert device.history == "complete"
    assert device.notes == ()
    read = device.events.causes()
    kept = [event for event in events if event[0] != "empty_cache" or _releases(events, event)]
    assert [row[0] for row in read] == [event[0] for event in kept]
    assert [row[2] for row in read if row[0] == "alloc"] == [event[2] for event in events if event[0] == "alloc"]
    run = replay(read)
    whole = replay(events)
    assert run.peak_reserved_bytes == whole.peak_reserved_bytes
    assert run.end_reserved_bytes == whole.end_reserved_bytes
    agrees(through_pickle(made), DEFAULTS)
    assert device.events.number("time_us", 0) == (None if era in ("2.0", "2.1") else 1_000_000)


def _releases(events: list[Event], event: Event) -> bool:
    """Whether an empty_cache had anything to return: one that had not leaves no trace."""
    position = next(number for number, other in enumerate(events) if other is event)
    before = replay(events[:position]).end_reserved_bytes
    return replay(events[: position + 1]).end_reserved_bytes < before


@pytest.mark.parametrize("text", SETTINGS)
@pytest.mark.parametrize("dropped", [0, 1, 40, 300])
def test_a_history_that_began_late_is_rebuilt_backwards(text: str, dropped: int) -> None:
    """The rebuilt starting layout is the layout that the allocator had there, block by block."""
    how = parse_settings(text)
    events = snapshots.program(seed=2, length=600, streams=(0, 7))
    made = snapshots.snapshot(events, how)
    trace = made["device_traces"][0]
    while dropped and trace[dropped]["time_us"] == trace[dropped - 1]["time_us"]:
        dropped += 1  # a cut inside an event is the next test's
    device = only(through_pickle(snapshots.started_late(made, dropped)))
    assert device.history == ("rebuilt" if dropped else "complete")
    assert device.notes == ()
    truth = _layout_before(made, events, how, dropped)
    allocator = DeviceAllocator(how)
    load(allocator, [placed_segment(segment) for segment in device.initial])
    assert shape(segment_map(allocator)) == shape(truth)
    agrees(through_pickle(snapshots.started_late(made, dropped)), how)


def _layout_before(
    made: Snapshot, events: list[Event], how: AllocatorSettings, dropped: int
) -> tuple[PlacedSegment, ...]:
    """The layout before one trace entry, from the events alone."""
    time = made["device_traces"][0][dropped]["time_us"]
    return snapshots.segments_of(events[: time - 1_000_000], how)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(SETTINGS), st.floats(0, 1))
def test_any_cut_of_any_history_agrees(seed: int, text: str, share: float) -> None:
    how = parse_settings(text)
    made = snapshots.snapshot(snapshots.program(seed, length=Random(seed).randint(1, 200), streams=(0, 5)), how)
    cut = int(share * len(made["device_traces"][0]))
    tape = through_pickle(snapshots.started_late(made, cut))
    for device in tape.devices:
        assert device.notes == ()
        end = device.start_reserved_bytes + device.events.reserved_change
        assert end == sum(segment["total_size"] for segment in made["segments"])
    if cut == 0:
        agrees(tape, how)


def test_several_devices_and_streams() -> None:
    first = snapshots.snapshot(snapshots.program(seed=3, streams=(0, 11, 12)))
    third = snapshots.snapshot(snapshots.program(seed=4, streams=(140_000_000_000_000,)), device=2)
    made = {
        "segments": first["segments"] + third["segments"],
        "device_traces": [first["device_traces"][0], [], third["device_traces"][2]],
    }
    tape = through_pickle(made)
    assert [device.device for device in tape.devices] == [0, 2]
    assert {row[3] for row in tape.devices[0].events.causes() if row[0] == "alloc"} == {0, 11, 12}
    agrees(tape, DEFAULTS)


def test_a_bare_list_of_segments_is_a_state_without_history() -> None:
    events = snapshots.program(seed=5)
    device = only(through_pickle(snapshots.snapshot(events)["segments"]))
    assert device.history == "final"
    assert len(device.events) == 0
    assert device.start_reserved_bytes == replay(events).end_reserved_bytes
    answer = replay_tape(through_pickle(snapshots.snapshot(events)["segments"]))
    assert answer.devices[0].replayed.peak_reserved_bytes == device.start_reserved_bytes


@pytest.mark.parametrize(
    "made", [[], {}, {"segments": [], "device_traces": []}, {"segments": [], "device_traces": [[]]}]
)
def test_nothing_in_it(made: object) -> None:
    assert through_pickle(made).devices == ()


def test_no_frames_and_no_segments() -> None:
    made = snapshots.snapshot(snapshots.program(seed=6))
    agrees(through_pickle(snapshots.without_frames(made)), DEFAULTS)
    device = only(through_pickle({"device_traces": made["device_traces"]}))
    assert device.history == "complete"
    assert "no segments" in device.notes[0]


def test_frames_name_the_line_and_the_cause_of_a_release() -> None:
    model = [
        {"filename": "/venv/torch/nn/modules/linear.py", "name": "forward", "line": 5},
        {"filename": "/home/me/model.py", "name": "forward", "line": 12},
    ]
    empty = [{"filename": "/venv/torch/cuda/memory.py", "name": "empty_cache", "line": 200}]
    base = {"stream": 0, "time_us": 1}
    held = {"addr": 1 << 33, "size": 20 * MIB, **base}
    block = {"addr": 1 << 33, "size": 8 * MIB, "frames": model, **base}
    trace = [
        {"action": "segment_alloc", "frames": model, **held},
        {"action": "alloc", **block},
        {"action": "free_requested", **block},
        {"action": "free_completed", **block},
        {"action": "segment_free", "frames": empty, **held},
        {"action": "segment_alloc", "frames": model, **held},
        {"action": "alloc", **block},
        {"action": "free_requested", **block},
        {"action": "free_completed", **block},
        {"action": "segment_free", "frames": model, **held},
        {"action": "segment_alloc", "frames": model, **held},
        {"action": "alloc", **block},
    ]
    table = only(through_pickle({"segments": [], "device_traces": [trace]})).events
    assert [row[0] for row in table.causes()] == ["alloc", "free", "empty_cache", "alloc", "free", "release", "alloc"]
    assert table.text("operator", 1) == "model.py:12 forward"


def test_running_out_ends_a_history() -> None:
    events = snapshots.program(seed=7, length=150)
    peak = replay(events).peak_reserved_bytes
    made = snapshots.snapshot(events, capacity=peak // 2)
    made["device_traces"][0] = _until_oom(made["device_traces"][0])
    made["segments"] = _segments_at_oom(events, peak // 2)
    tape = through_pickle(made)
    device = only(tape)
    assert device.events.causes()[-1][0] == "oom"
    (mark,) = [mark for mark in device.marks if mark.kind == "oom"]
    answer = replay_tape(tape).devices[0]
    assert answer.replayed.oom is not None
    assert answer.replayed.oom.event == len(device.events.causes()) - 1
    assert answer.replayed.oom.free_bytes == mark.value
    own, *others = answer.what_ifs
    assert own.is_recorded
    assert own.oom == answer.replayed.oom
    assert own.limit is not None
    assert own.limit.capacity_bytes == peak // 2
    assert all(row.limit == own.limit for row in others)


def _until_oom(trace: list[dict[str, object]]) -> list[dict[str, object]]:
    return trace[: 1 + next(row for row, entry in enumerate(trace) if entry["action"] == "oom")]


def _segments_at_oom(events: list[Event], capacity: int) -> object:
    oom = replay(events, capacity_bytes=capacity).oom
    assert oom is not None
    return snapshots.snapshot(events[: oom.event + 1], capacity=capacity)["segments"]


def test_blocks_that_wait_for_another_stream() -> None:
    events: list[Event] = [
        ("alloc", 0, 5 * MIB, 0, 0),
        ("alloc", 1, 6 * MIB, 0, 0),
        ("free_requested", 0, 0, 0, 0),
        ("alloc", 2, 5 * MIB, 0, 0),
        ("free_completed", 0, 0, 0, 0),
        ("free_requested", 1, 0, 0, 0),
    ]
    made = snapshots.snapshot(events)
    assert [b["state"] for s in made["segments"] for b in s["blocks"]].count("active_pending_free") == 1
    device = only(through_pickle(made))
    assert [row[:2] for row in device.events.causes()] == [event[:2] for event in events]
    late = only(through_pickle(snapshots.started_late(made, 4)))
    assert [held.pending for segment in late.initial for held in segment.blocks] == [True, False]
    agrees(through_pickle(snapshots.started_late(made, 4)), DEFAULTS)
    for segment in made["segments"]:
        for block in segment["blocks"]:
            block["state"] = block["state"].replace("active_pending_free", "active_awaiting_free")
    agrees(through_pickle(made), DEFAULTS)


@pytest.mark.parametrize("era", ["2.11", "2.10"])
def test_private_pools(era: str) -> None:
    events: list[Event] = [("alloc", n, 3 * MIB, 0, n % 2) for n in range(12)]
    events += [("free", n, 0, 0, 0) for n in range(8)]
    events += [("alloc", 20 + n, 3 * MIB, 0, n % 2) for n in range(6)]
    tape = through_pickle(ERAS[era](snapshots.snapshot(events)))
    assert {row[4] for row in only(tape).events.causes() if row[0] == "alloc"} == {0, 1}
    agrees(tape, DEFAULTS)


def test_settings_are_found_wherever_the_release_kept_them() -> None:
    events = snapshots.program(seed=8, length=50)
    how = parse_settings("expandable_segments:True")
    made = snapshots.snapshot(events, how)
    assert through_pickle(made).settings == "expandable_segments:True"
    assert through_pickle(snapshots.as_torch_2_2(made)).settings == "expandable_segments:True"
    made["allocator_settings"] = {
        "PYTORCH_CUDA_ALLOC_CONF": "",
        "max_split_size": 64 * MIB,
        "garbage_collection_threshold": 0.5,
        "expandable_segments": True,
        "roundup_power2_divisions": {"1": 2, "2": 4, "64": 0},
    }
    text = "max_split_size_mb:64,garbage_collection_threshold:0.5,expandable_segments:True"
    assert through_pickle(made).settings == text + ",roundup_power2_divisions:[1:2,2:4,64:0]"
    parse_settings(through_pickle(made).settings)
    made["allocator_settings"] = {"max_split_size": -1, "garbage_collection_threshold": 0.0}
    assert through_pickle(made).settings == ""


def test_annotations_stand_where_their_time_puts_them() -> None:
    made = snapshots.snapshot(snapshots.program(seed=9, length=50))
    made["external_annotations"] = [
        {"name": "Optimizer.step#AdamW.step", "stage": "START", "device": 0, "time_us": 1_000_010},
        {"name": "Optimizer.step#AdamW.step", "stage": "END", "device": 0, "time_us": 1_000_020},
    ]
    device = only(through_pickle(made))
    start, end = device.marks
    assert (start.kind, end.kind, start.name) == ("start", "end", "Optimizer.step#AdamW.step")
    assert device.events.number("time_us", start.row) == 1_000_010
    assert start.row < end.row


def test_histories_that_contradict_themselves_are_read_and_marked() -> None:
    made = snapshots.snapshot(snapshots.program(seed=10))
    trace = made["device_traces"][0]
    made["device_traces"] = [[entry for number, entry in enumerate(trace) if number % 3 or entry["action"] != "alloc"]]
    device = only(through_pickle(made))
    assert "contradict" in device.notes[0]
    replay_tape(through_pickle(made))


def test_torch_reads_what_we_write() -> None:
    """The viewer's own functions accept the snapshot."""
    viz = pytest.importorskip("torch.cuda._memory_viz")
    made = snapshots.snapshot(snapshots.program(seed=11, length=120))
    assert "20.0MiB" in viz.segsum(made)
    assert "alloc" in viz.trace(made) or "malloc" in viz.trace(made)
    assert "<html" in viz.trace_plot(made).lower() or "script" in viz.trace_plot(made)


@pytest.mark.parametrize("name", ["plain", "gzipped"])
def test_read_from_a_file(name: str, tmp_path: Path) -> None:
    import gzip

    data = pickle.dumps(snapshots.snapshot(snapshots.program(seed=12)), protocol=4)
    file = tmp_path / "memory.pickle"
    file.write_bytes(gzip.compress(data) if name == "gzipped" else data)
    agrees(read_recording(file), DEFAULTS)


@pytest.mark.parametrize("damage", [lambda s: s.pop("blocks"), lambda s: s.update(total_size="big")])
def test_damaged_segments_are_refused(damage: Callable[[Snapshot], object]) -> None:
    from galore_mem.tapes.checks import Refusal

    made = snapshots.snapshot(snapshots.program(seed=13))
    damage(made["segments"][0])
    with pytest.raises(Refusal):
        tape_from_snapshot(made)
