"""Large snapshots with the stacks of a real run, written as they are made: Python need not hold what the file holds.

torch's own writer pickles one dict per event, whose `frames` is a list of its own for every allocation (its frees share
it), while the frames in it are shared by all. This writer makes the same opcodes, frames of 64 KiB included.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from estimators.allocator.placed import place
from galore_mem.answers.histories import held_segment
from galore_mem.tapes.memory_viz import _segment_dict
from tests.galore_mem.answers.made_runs import made_run
from tests.galore_mem.answers.made_snapshots import MODEL, SCRIPT, SITE, STACKS, Frame

_FRAME_BYTES = 1 << 16
_BATCH = 1000
_FIRST_US = 1_700_000_000_000_000


class PickleWriter:
    """Python's pickler of protocol 4 for plain values, which forgets what it has written."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._memo = 0
        self._texts: dict[str, bytes] = {}
        stream.write(b"\x80\x04")

    @property
    def written_bytes(self) -> int:
        """Bytes of the file so far."""
        return self._stream.tell() + len(self._buffer)

    def put(self, opcodes: bytes) -> None:
        """Opcodes that belong together; a frame may end behind them."""
        self._buffer += opcodes
        if len(self._buffer) >= _FRAME_BYTES:
            self.flush()

    def flush(self) -> None:
        """End a frame."""
        if self._buffer:
            self._stream.write(b"\x95" + struct.pack("<Q", len(self._buffer)) + self._buffer)
            self._buffer.clear()

    def memoized(self) -> bytes:
        """A reference to what is memoized next."""
        number = self._memo
        self._memo += 1
        return b"h" + bytes([number]) if number < 256 else b"j" + struct.pack("<I", number)

    def text(self, text: str, *, is_shared: bool = True) -> bytes:
        """Opcodes of a text: shared ones are written once."""
        if text in self._texts and is_shared:
            return self._texts[text]
        self._texts[text] = self.memoized()
        encoded = text.encode()
        return b"\x8c" + bytes([len(encoded)]) + encoded + b"\x94"

    @staticmethod
    def number(value: int) -> bytes:
        """Opcodes of a number that is not negative."""
        if value < 1 << 8:
            return b"K" + bytes([value])
        if value < 1 << 16:
            return b"M" + struct.pack("<H", value)
        if value < 1 << 31:
            return b"J" + struct.pack("<i", value)
        width = value.bit_length() // 8 + 1
        return b"\x8a" + bytes([width]) + value.to_bytes(width, "little")

    def save(self, value: Any) -> bytes:  # noqa: ANN401
        """Write any plain value, and return how to refer to it if it is a list or dict."""
        if isinstance(value, list | dict):
            return self._save_items(value)
        if value is None or isinstance(value, bool):
            self.put(b"N" if value is None else b"\x88" if value else b"\x89")
        elif isinstance(value, int):
            self.put(self.number(value))
        elif isinstance(value, str):
            self.put(self.text(value))
        else:
            self.put(b"".join(map(self.number, value)) + b"\x86\x94")
            self.memoized()
        return b""

    def _save_items(self, value: list[Any] | dict[str, Any]) -> bytes:
        self.put(b"]\x94" if isinstance(value, list) else b"}\x94")
        reference = self.memoized()
        for start in range(0, len(value), _BATCH):
            self.put(b"(")
            for item in list(value)[start : start + _BATCH]:
                self.save(item)
                if isinstance(value, dict):
                    self.save(value[item])
            self.put(b"e" if isinstance(value, list) else b"u")
        return reference


def deep_stacks(depth: int) -> dict[str, list[Frame]]:
    """Stacks of a real program: a launcher below, modules within modules, the library's own frames on top."""
    modules = [
        {"filename": MODEL, "line": 10 + number, "name": "forward"}
        if number % 3 == 0
        else {"filename": f"{SITE}/nn/modules/module.py", "line": 1700 + number % 3, "name": "_wrapped_call_impl"}
        for number in range(depth)
    ]
    launcher = [{"filename": SCRIPT, "line": 100 + number, "name": f"level_{number}"} for number in range(depth // 4)]
    return {
        name: (stack[:-1] + (modules if name in ("forward", "loss") else modules[: depth // 2]) + launcher)[:depth]
        + stack[-1:]
        for name, stack in STACKS.items()
    }


def write_snapshot(path: Path, *, events: int = 0, size_bytes: int = 0, depth: int = 60, layers: int = 32) -> int:
    """Write a snapshot of at least so many trace entries and bytes, and return the number of its entries.

    Args:
        path: the file.
        events: entries of the trace.
        size_bytes: of the file.
        depth: frames of a stack; 0 for a recording without stacks.
        layers: of the model in it.
    """
    steps, segments = _steps(layers)
    with path.open("wb") as stream:
        writer = PickleWriter(stream)
        writer.put(b"}\x94(")
        writer.memoized()
        writer.put(writer.text("segments"))
        writer.save(segments)
        writer.put(writer.text("device_traces") + b"]\x94]\x94")
        writer.memoized(), writer.memoized()
        trace = _TraceWriter(writer, depth)
        for step in steps[:-1]:
            trace.write(step)
        while trace.entries < events or writer.written_bytes < size_bytes:
            trace.write(steps[-1])
        writer.put(b"a")
        for key, value in (("allocator_settings", {"PYTORCH_CUDA_ALLOC_CONF": ""}), ("external_annotations", [])):
            writer.put(writer.text(key))
            writer.save(value)
        writer.put(b"u.")
        writer.flush()
    return trace.entries


Entry = tuple[str, int, int, int, str]
"""(action, address, bytes, stream, name of its stack)."""


def _steps(layers: int) -> tuple[list[list[Entry]], list[dict[str, Any]]]:
    """The entries of each training step, the last of which may be repeated, and the segments after it."""
    (device,) = made_run(layers=layers, steps=4).devices
    table, rows = device.events, device.events.cause_rows()
    events, segments = place(table.causes())
    begins = [mark.row for mark in device.marks if mark.kind == "iteration"][1:]
    steps: list[list[Entry]] = [[] for _ in range(len(begins) + 1)]
    for action, address, size, stream, _, cause in events:
        row = rows[cause]
        is_weight = table.text("category", row) == "weights"
        stack = "weights" if is_weight else table.text("phase", row) or "between"
        steps[sum(row >= begin for begin in begins)].append((action, address, size, stream, stack))
    assert steps[-1] == steps[-2], "a step that is repeated must end where it began"
    return steps, [_segment_dict(0, held_segment(segment)) for segment in segments]


class _TraceWriter:
    """Writes the entries of one trace, in batches as Python's pickler does."""

    def __init__(self, writer: PickleWriter, depth: int) -> None:
        self.entries = 0
        self._writer = writer
        self._stacks = deep_stacks(depth) if depth else {}
        self._frames: dict[str, bytes] = {}
        self._references: dict[str, bytes] = {}
        self._lists: dict[int, bytes] = {}

    def write(self, entries: Sequence[Entry]) -> None:
        """One step."""
        for start in range(0, len(entries), _BATCH):
            self._writer.put(b"(")
            for entry in entries[start : start + _BATCH]:
                self._write(*entry)
            self._writer.put(b"e")

    def _write(self, action: str, address: int, size: int, stream: int, stack: str) -> None:
        writer = self._writer
        writer.put(b"}\x94(")
        writer.memoized()
        writer.put(writer.text("action") + writer.text(action))
        time_us = _FIRST_US + self.entries
        for key, value in (("addr", address), ("size", size), ("stream", stream), ("time_us", time_us)):
            writer.put(writer.text(key) + writer.number(value))
        writer.put(writer.text("compile_context") + writer.text("N/A", is_shared=False))
        writer.put(writer.text("user_metadata") + writer.text(""))
        writer.put(writer.text("pool_id") + b"K\x00K\x00\x86\x94")
        writer.memoized()
        if self._stacks:
            writer.put(writer.text("frames"))
            self._write_frames(action, address, stack)
        writer.put(b"u")
        self.entries += 1

    def _write_frames(self, action: str, address: int, stack: str) -> None:
        writer = self._writer
        if action in ("free_requested", "free_completed"):
            writer.put(self._lists[address])
            return
        writer.put(b"]\x94(")
        self._lists[address] = writer.memoized()
        if stack not in self._references:
            self._references[stack] = b"".join(map(self._write_frame, self._stacks[stack]))
        else:
            writer.put(self._references[stack])
        writer.put(b"e")

    def _write_frame(self, frame: Frame) -> bytes:
        key = repr(frame)
        if key in self._frames:
            self._writer.put(self._frames[key])
        else:
            self._frames[key] = self._writer.save(frame)
        return self._frames[key]
