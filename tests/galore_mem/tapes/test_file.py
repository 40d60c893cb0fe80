import gzip
import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galore_mem.errors import UsageError
from galore_mem.tapes.file import tape_bytes, tape_from_bytes, write_tape
from galore_mem.tapes.recording import read_recording
from galore_mem.tapes.table import ACTIONS, OPTIONAL, TEXTS, EventTable
from galore_mem.tapes.tape import DeviceTape, HeldBlock, HeldSegment, Mark, Tape

INT64 = st.integers(-(2**63), 2**63 - 1)
SIZES = st.integers(0, 2**63 - 1)


@st.composite
def tables(draw: st.DrawFn) -> EventTable:
    table = EventTable()
    for _ in range(draw(st.integers(0, 12))):
        known: dict[str, int | str] = {}
        for name in draw(st.sets(st.sampled_from(OPTIONAL))):
            known[name] = draw(st.text(max_size=5)) if name in TEXTS else draw(INT64)
        table.append(draw(st.sampled_from(ACTIONS)), draw(INT64), draw(SIZES), draw(INT64), draw(INT64), **known)
    return table


@st.composite
def tapes(draw: st.DrawFn) -> Tape:
    devices = []
    for device in range(draw(st.integers(0, 3))):
        events = draw(tables())
        block = HeldBlock(
            block=draw(INT64), offset=draw(SIZES), size=draw(SIZES), requested=3, pending=draw(st.booleans())
        )
        segment = HeldSegment(
            address=draw(INT64), size=draw(SIZES), stream=draw(INT64), is_small=draw(st.booleans()), blocks=(block,)
        )
        mark = Mark(row=draw(st.integers(0, len(events))), kind="phase", name=draw(st.text(max_size=4)), value=None)
        devices.append(
            DeviceTape(device=device, events=events, initial=(segment,), marks=(mark,), history="rebuilt", notes=("n",))
        )
    return Tape(devices=tuple(devices), settings=draw(st.text(max_size=9)), metadata={"a": [1, None, "é"]})


def columns(table: EventTable) -> dict[str, list[int]]:
    fixed = {name: list(getattr(table, name)) for name in ("action", "block", "size", "stream", "pool")}
    return {**fixed, **{name: list(column) for name, column in table.known.items()}}


@settings(max_examples=100, deadline=None)
@given(tapes())
def test_what_is_written_is_read(tape: Tape) -> None:
    again = tape_from_bytes(tape_bytes(tape))
    assert (again.settings, again.source, again.metadata) == (tape.settings, tape.source, tape.metadata)
    for mine, theirs in zip(tape.devices, again.devices, strict=True):
        assert columns(mine.events) == columns(theirs.events)
        assert mine.events.names == theirs.events.names
        assert (mine.initial, mine.marks, mine.history, mine.notes) == (
            theirs.initial,
            theirs.marks,
            theirs.history,
            theirs.notes,
        )
    assert tape_bytes(again) == tape_bytes(tape)


def test_a_column_begins_empty_when_it_is_first_known() -> None:
    table = EventTable()
    table.append("alloc", 1, 100)
    table.append("alloc", 2, 100, phase="forward", time_us=7)
    table.append("free", 1)
    assert [table.text("phase", row) for row in range(3)] == ["", "forward", ""]
    assert [table.number("time_us", row) for row in range(3)] == [0, 7, 0]
    assert table.number("address", 0) is None
    with pytest.raises(TypeError, match="colour"):
        table.append("free", 2, colour="red")


def test_causes_and_effects() -> None:
    table = EventTable()
    table.append("segment_alloc", 0, 20, address=5)
    table.append("alloc", 1, 10)
    table.append("free", 1)
    table.append("segment_free", 0, 20, address=5)
    table.append("empty_cache")
    assert [row[0] for row in table.causes()] == ["alloc", "free", "empty_cache"]
    assert list(table.cause_rows()) == [1, 2, 4]
    assert list(table.reserved_after_causes(3)) == [23, 23, 3]
    assert table.reserved_change == 0
    assert table.reserved_change_before(2) == 20


def test_written_whole_or_not_at_all(tmp_path: Path) -> None:
    tape = Tape(devices=(DeviceTape(events=EventTable()),))
    write_tape(tmp_path / "a.json.gz", tape)
    assert [file.name for file in tmp_path.iterdir()] == ["a.json.gz"]
    assert read_recording(tmp_path / "a.json.gz").devices[0].history == "complete"
    with pytest.raises(UsageError, match="cannot write"):
        write_tape(tmp_path / "none" / "a.json.gz", tape)
    assert json.loads(gzip.decompress((tmp_path / "a.json.gz").read_bytes()))["schema"] == "galore-mem/tape/1"


def test_a_million_events_are_read_in_seconds() -> None:
    table = EventTable()
    for block in range(500_000):
        table.append("alloc", block, block * 37 % 999_983, phase="forward", time_us=block)
        table.append("free", block, phase="backward", time_us=block)
    data = tape_bytes(Tape(devices=(DeviceTape(events=table),)))
    assert len(data) < 16 << 20
    start = time.process_time()
    assert len(tape_from_bytes(data).devices[0].events) == 1_000_000
    assert time.process_time() - start < 5
