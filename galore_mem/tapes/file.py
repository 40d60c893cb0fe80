"""The Tape's file: gzipped JSON, columns as base64 of little-endian integers.

Version 1 is `{"schema": "galore-mem/tape/1", "settings", "source", "metadata", "devices": [...]}`. A device is

    {"device", "history", "total_bytes", "notes", "events", "names", "columns": {name: {"type", "data"}},
     "initial": [[address, size, stream, is_small, pool, is_expandable,
                  [[block, offset, size, requested, pending], ...]], ...],
     "marks": [[row, kind, name, time_us, value], ...]}

A column's type is the narrowest of B, H, I, b, h, i, q (as in `array`) that holds it. The same Tape always makes the
same bytes. A million events of a training run take a few MB and load in about a second.
"""

import base64
import json
import os
import sys
import zlib
from array import array
from collections.abc import Iterator
from typing import Any

from galore_mem.tapes.atomic import write_bytes
from galore_mem.tapes.checks import MOST_DEVICES, a_dict, a_list, a_size, a_text, an_int, refuse
from galore_mem.tapes.table import ACTIONS, OPTIONAL, TEXTS, EventTable
from galore_mem.tapes.tape import DeviceTape, HeldBlock, HeldSegment, Mark, Tape

SCHEMA = "galore-mem/tape/1"
_FIXED = ("action", "block", "size", "stream", "pool")
_WIDTHS = {"B": 1, "H": 2, "I": 4, "b": 1, "h": 2, "i": 4, "q": 8}
LARGEST_CONTENT_BYTES = 1 << 30
"""Of a compressed file, unpacked."""
_MOST_ITEMS = 1 << 24
_HISTORIES = ("complete", "rebuilt", "final")
_SOURCES = ("traced", "replayed", "measured", "snapshot", "unknown")


def write_tape(path: str | os.PathLike[str], tape: Tape) -> None:
    """Write a Tape, atomically.

    Raises:
        UsageError: the file cannot be written.
    """
    write_bytes(path, tape_bytes(tape))


def tape_bytes(tape: Tape) -> bytes:
    """The file's content."""
    data = tape_bytes_within(tape, None)
    assert data is not None
    return data


def tape_bytes_within(tape: Tape, most_bytes: int | None) -> bytes | None:
    """The file's content; None if it has more bytes than that, as soon as that is known."""
    machine = zlib.compressobj(6, wbits=31)
    packed: list[bytes] = []
    length = 0
    for text in _texts(tape):
        packed.append(machine.compress(text.encode()))
        length += len(packed[-1])
        if most_bytes is not None and length > most_bytes:
            return None
    packed.append(machine.flush())
    data = b"".join(packed)
    return data if most_bytes is None or len(data) <= most_bytes else None


def _texts(tape: Tape) -> Iterator[str]:
    """The JSON, keys sorted, one column at a time: all of a long history's at once takes more than the history."""
    yield '{"devices":['
    for number, device in enumerate(tape.devices):
        yield "," * bool(number) + '{"columns":{'
        table = device.events
        columns: dict[str, array[int]] = {name: getattr(table, name) for name in _FIXED} | table.known
        for place, name in enumerate(sorted(columns)):
            yield "," * bool(place) + f"{_json(name)}:{_json(_packed(columns[name]))}"
        yield "}," + _json(_facts(device))[1:]
    rest = {"metadata": dict(tape.metadata), "schema": SCHEMA, "settings": tape.settings, "source": tape.source}
    yield "]," + _json(rest)[1:]


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _facts(device: DeviceTape) -> dict[str, Any]:
    """All of a device but its columns, which come first by name."""
    return {
        "device": device.device,
        "history": device.history,
        "total_bytes": device.total_bytes,
        "notes": list(device.notes),
        "events": len(device.events),
        "names": device.events.names,
        "initial": [
            [
                *(segment.address, segment.size, segment.stream, segment.is_small, segment.pool, segment.is_expandable),
                [[held.block, held.offset, held.size, held.requested, held.pending] for held in segment.blocks],
            ]
            for segment in device.initial
        ],
        "marks": [[mark.row, mark.kind, mark.name, mark.time_us, mark.value] for mark in device.marks],
    }


def _packed(column: "array[int]") -> dict[str, str]:
    low, high = min(column, default=0), max(column, default=0)
    for code, width in _WIDTHS.items():
        least, most = (0, 256**width) if code.isupper() else (-(256**width) // 2, 256**width // 2)
        if least <= low and high < most:
            packed = array(code, column)
            if sys.byteorder == "big":
                packed.byteswap()
            return {"type": code, "data": base64.b64encode(packed.tobytes()).decode("ascii")}
    raise AssertionError("an array of 64-bit integers fits no type")


def tape_from_bytes(data: bytes) -> Tape:
    """A Tape from its file's content, gzipped or not.

    Raises:
        Refusal: it is no Tape, or it contradicts itself.
    """
    text = inflate(data) if data[:2] == b"\x1f\x8b" else data
    if text.count(b",") + text.count(b"[") + text.count(b"{") > _MOST_ITEMS:
        refuse("it holds more items than any Tape")
    try:
        content = a_dict(json.loads(text), "the file")
    except (ValueError, RecursionError, MemoryError) as error:
        refuse(f"its JSON is broken: {str(error)[:100]}")
    schema = content.get("schema")
    if schema != SCHEMA:
        newer = isinstance(schema, str) and schema.startswith("galore-mem/tape/")
        refuse(
            f"it was written by a newer galore-mem ({schema[:40]})" if newer and schema else "it has no Tape's schema"
        )
    source = content.get("source", "unknown")
    if source not in _SOURCES:
        refuse("its source is none that a Tape has")
    devices = a_list(content.get("devices"), "devices")
    if len(devices) > MOST_DEVICES:
        refuse(f"it has {len(devices)} devices")
    return Tape(
        devices=tuple(map(_device, devices)),
        settings=a_text(content.get("settings"), "settings"),
        source=source,
        metadata=a_dict(content.get("metadata"), "metadata"),
    )


def inflate(data: bytes) -> bytes:
    """A gzipped file's content.

    Raises:
        Refusal: it is broken, cut off, or unpacks to more than `LARGEST_CONTENT_BYTES`.
    """
    machine = zlib.decompressobj(wbits=31)
    try:
        text = machine.decompress(data, LARGEST_CONTENT_BYTES)
    except (zlib.error, MemoryError) as error:
        refuse(f"its compression is broken: {error}")
    if machine.unconsumed_tail:
        refuse(f"it unpacks to more than {LARGEST_CONTENT_BYTES >> 20} MiB")
    if not machine.eof:
        refuse("it is cut off")
    return text


def _device(value: object) -> DeviceTape:
    content = a_dict(value, "a device")
    history = content.get("history")
    if history not in _HISTORIES:
        refuse("its history is none that a Tape has")
    total = content.get("total_bytes")
    events = _table(content)
    return DeviceTape(
        device=a_size(content.get("device"), "a device's number"),
        events=events,
        initial=tuple(_segment(entry) for entry in a_list(content.get("initial"), "initial")),
        marks=tuple(_mark(entry, len(events)) for entry in a_list(content.get("marks"), "marks")),
        history=history,
        total_bytes=None if total is None else a_size(total, "total_bytes"),
        notes=tuple(a_text(note, "a note") for note in a_list(content.get("notes"), "notes")),
    )


def _table(content: dict[Any, Any]) -> EventTable:
    length = a_size(content.get("events"), "events")
    table = EventTable()
    names = [a_text(name, "a name") for name in a_list(content.get("names"), "names")]
    if names[:1] != [""]:
        refuse("its texts do not begin with the empty one")
    table.set_names(names)
    columns = a_dict(content.get("columns"), "columns")
    for name in _FIXED:
        if name not in columns:
            refuse(f"column {name} is missing")
    for name, packed in columns.items():
        if name not in _FIXED and name not in OPTIONAL:
            refuse("it has a column that no Tape has")
        column = _unpacked(packed, name, length)
        if name == "action":
            if max(column, default=0) >= len(ACTIONS) or min(column, default=0) < 0:
                refuse("it has an action that no Tape has")
            table.action = array("B", column)
        elif name in _FIXED:
            setattr(table, name, column)
        else:
            if name in TEXTS and (max(column, default=0) >= len(table.names) or min(column, default=0) < 0):
                refuse(f"column {name} names a text that is not there")
            table.known[name] = column
    if min(table.size, default=0) < 0:
        refuse("it has an event of negative size")
    return table


def _unpacked(value: object, name: str, length: int) -> "array[int]":
    packed = a_dict(value, f"column {name}")
    code = packed.get("type")
    if type(code) is not str or code not in _WIDTHS:
        refuse(f"column {name} has no known type")
    try:
        data = base64.b64decode(a_text(packed.get("data"), f"column {name}"), validate=True)
    except ValueError:
        refuse(f"column {name} is not base64")
    if len(data) != length * _WIDTHS[code]:
        refuse(f"column {name} has not one entry per event")
    column: array[int] = array(code)
    column.frombytes(data)
    if sys.byteorder == "big":
        column.byteswap()
    return array("q", column)


def _segment(value: object) -> HeldSegment:
    fields = _fields(value, 7, "a segment")
    return HeldSegment(
        address=an_int(fields[0], "a segment's address"),
        size=a_size(fields[1], "a segment's size"),
        stream=an_int(fields[2], "a segment's stream"),
        is_small=fields[3] is True,
        pool=an_int(fields[4], "a segment's pool"),
        is_expandable=fields[5] is True,
        blocks=tuple(_block(entry) for entry in a_list(fields[6], "a segment's blocks")),
    )


def _block(value: object) -> HeldBlock:
    fields = _fields(value, 5, "a block")
    return HeldBlock(
        block=an_int(fields[0], "a block's number"),
        offset=a_size(fields[1], "a block's offset"),
        size=a_size(fields[2], "a block's size"),
        requested=a_size(fields[3], "a block's request"),
        pending=fields[4] is True,
    )


def _mark(value: object, events: int) -> Mark:
    fields = _fields(value, 5, "a mark")
    row = a_size(fields[0], "a mark's row")
    if row > events:
        refuse("a mark stands behind the last event")
    return Mark(
        row=row,
        kind=a_text(fields[1], "a mark's kind"),
        name=a_text(fields[2], "a mark's name"),
        time_us=None if fields[3] is None else an_int(fields[3], "a mark's time"),
        value=None if fields[4] is None else an_int(fields[4], "a mark's value"),
    )


def _fields(value: object, count: int, what: str) -> list[Any]:
    fields = a_list(value, what)
    return fields if len(fields) == count else refuse(f"{what} has {len(fields)} fields where {count} were expected")
