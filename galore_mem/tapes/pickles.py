"""Snapshots are pickles, and pickles can do anything: so this one is read by a machine that can do little.

A snapshot needs numbers, texts, booleans, None, lists, dicts and pairs of integers. The machine knows the opcodes that
make those and refuses every other: no globals, no calls, no persistent ids, no memo slot but the next one, no tuples
but pairs of integers, no number of more than 64 bits. It reads the file once, piece by piece, and makes nothing that it
does not need: an event of a device's trace becomes a row of a `Trace` as soon as it is whole, and a list of frames what
it tells. A file holds each event's dict and stack in a few hundred bytes, Python in more than a thousand.
"""

import struct
from collections.abc import Callable
from typing import Any

from galore_mem.tapes.checks import Refusal, refuse
from galore_mem.tapes.entries import GONE, Entries
from galore_mem.tapes.stacks import NO_FRAMES, Stacks
from galore_mem.tapes.trace import Trace, Traces
from galore_mem.tapes.window import Read, Window

_BASE_BUDGET_BYTES = 256 << 20
_BUDGET_PER_FILE_BYTE = 16
_CONTAINER_BYTES = 120
_ITEM_BYTES = 40
_MOST_MARKS = 10_000
_MOST_ON_THE_STACK = 1 << 20
_MOST_NUMBER_BYTES = 9
"""64 bits and a sign."""
_LARGEST_TEXT_BYTES = 16 << 20
_AHEAD_BYTES = 1 << 16
"""At hand before an event is looked at: more than one takes, except with stacks of thousands of frames."""


def load(read: Read) -> object:
    """The content of a snapshot's pickle: `device_traces` as `Traces`, `frames` as a `Stack`, the rest as it is.

    Args:
        read: gives the next bytes of the file.

    Raises:
        Refusal: it is not a pickle, is cut off, or holds something that no snapshot holds.
    """
    try:
        return _Machine(Window(read)).run()
    except Refusal:
        raise
    except MemoryError:
        refuse("there is not enough memory for its content")
    except Exception as error:  # a malformed pickle may bring the machine to almost anything
        refuse(f"its pickle is broken: {str(error)[:120] or type(error).__name__}")


class _Frames(list[Any]):
    """A list of frames in the making, and the memo slot that it was given."""

    __slots__ = ("slot",)

    def __init__(self) -> None:
        super().__init__()
        self.slot = -1


class _Machine:
    """Python's own unpickling machine with most of its opcodes missing.

    `stack` holds what was made since the last mark, `marks` what lay there before each mark.
    """

    def __init__(self, window: Window) -> None:
        self.window = window
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: list[Any] = []
        self.stacks = Stacks()
        self.entries = Entries(window, self.memo, self.stacks)
        self.trace: Trace | None = None
        """The trace whose events are being read, and how many marks lie below them."""
        self.trace_marks = -1
        self.slots: list[int] = []
        """Memo slots of its events that are not yet rows."""
        self.kept_bytes = 0
        """A guess at what everything made so far takes, if it is not a row by now."""

    def run(self) -> object:
        """What the pickle holds."""
        window, known = self.window, _OPCODES
        if not window.ahead(1):
            refuse("it is empty")
        if window.take(1) != b"\x80":
            refuse("it does not begin like a pickle of protocol 2 or later")
        self._protocol()
        while True:
            if len(window.data) - window.position < _AHEAD_BYTES:
                self._refill()
            opcode = window.take(1)[0]
            handler = known.get(opcode)
            if handler is not None:
                handler(self)
            elif opcode == _STOP:
                return self.stack.pop()
            else:
                refuse(_why_not(opcode))

    def _refill(self) -> None:
        self.window.ahead(_AHEAD_BYTES)
        if self.kept_bytes > _BASE_BUDGET_BYTES + _BUDGET_PER_FILE_BYTE * self.window.offset:
            refuse("it holds more lists and dicts than a snapshot of its size can")
        if len(self.stack) > _MOST_ON_THE_STACK:
            refuse("it holds more values outside of lists and dicts than any snapshot")

    # Numbers, texts, constants.

    def _protocol(self) -> None:
        if not 2 <= self.window.take(1)[0] <= 5:
            refuse("it does not begin like a pickle of protocol 2 to 5")

    def _frame(self) -> None:
        self.window.take(8)

    def _push(self, value: object) -> None:
        self.stack.append(value)

    def _unsigned(self, width: int) -> None:
        self.stack.append(int.from_bytes(self.window.take(width), "little"))

    def _long(self) -> None:
        width = self.window.take(1)[0]
        if width > _MOST_NUMBER_BYTES:
            refuse("it holds a number of more than 64 bits")
        self.stack.append(int.from_bytes(self.window.take(width), "little", signed=True))

    def _text(self, width: int) -> None:
        length = int.from_bytes(self.window.take(width), "little")
        if length > _LARGEST_TEXT_BYTES:
            refuse("it holds a text longer than any in a snapshot")
        if self.window.ahead(length) < length:
            refuse("it is cut off inside a text")
        self.stack.append(self.window.take(length).decode("utf-8", "surrogatepass"))

    # The memo.

    def _memoize(self) -> None:
        value = self.stack[-1]
        if type(value) is _Frames:
            value.slot = len(self.memo)
        elif len(self.marks) == self.trace_marks:
            self.slots.append(len(self.memo))
        self.memo.append(value)

    def _put(self, width: int) -> None:
        if int.from_bytes(self.window.take(width), "little") != len(self.memo):
            refuse("it refers to more objects than it can hold")
        self._memoize()

    def _get(self, width: int) -> None:
        value = self.memo[int.from_bytes(self.window.take(width), "little")]
        if value is GONE:
            refuse("it refers back to an event")
        self.stack.append(value)

    # Lists, dicts, pairs.

    def _mark(self) -> None:
        if len(self.marks) >= _MOST_MARKS:
            refuse("it is nested deeper than any snapshot")
        if self.stack and type(self.stack[-1]) is Trace:
            self.trace, self.trace_marks = self.stack[-1], len(self.marks) + 1
        self.marks.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _empty_dict(self) -> None:
        if self.trace is not None and len(self.marks) == self.trace_marks:
            self._take_events()
            self.window.position -= 1
            if self.entries.read_into(self.trace):
                return
            self.window.position += 1
        self.kept_bytes += _CONTAINER_BYTES
        self.stack.append({})

    def _empty_list(self) -> None:
        before = self.stack[-1] if self.stack else None
        holder = self.marks[-1][-1] if self.marks and self.marks[-1] else None
        made: list[Any] | Trace = []
        if type(before) is Traces or type(holder) is Traces:
            made = Trace()
        elif type(before) is str and before == "frames":
            made = _Frames()
        elif type(before) is str and before == "device_traces" and len(self.marks) <= 1:
            made = Traces()
        self.kept_bytes += _CONTAINER_BYTES
        self.stack.append(made)

    def _append(self) -> None:
        self._extend([self.stack.pop()])

    def _appends(self) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: list[Any]) -> None:
        holder = self.stack[-1]
        if type(holder) is Trace:
            self._add_events(holder, items)
            self.trace, self.trace_marks = None, -1
        elif isinstance(holder, list):
            holder.extend(items)
            self.kept_bytes += _ITEM_BYTES * len(items)
        else:
            raise TypeError("something is appended to what is no list")

    def _set_item(self) -> None:
        value = self.stack.pop()
        self._update([self.stack.pop(), value])

    def _set_items(self) -> None:
        self._update(self._since_mark())

    def _update(self, items: list[Any]) -> None:
        holder = self.stack[-1]
        if type(holder) is not dict:
            raise TypeError("something is put into what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            holder[key] = self._read_frames(value) if type(value) is _Frames else value
        self.kept_bytes += _ITEM_BYTES * len(items) // 2

    def _pair(self) -> None:
        second, first = self.stack.pop(), self.stack.pop()
        if type(first) is not int or type(second) is not int:
            refuse("it holds a tuple that is no pair of numbers")
        self.stack.append((first, second))

    # What need not be kept.

    def _take_events(self) -> None:
        """Events that are whole become rows: another one begins."""
        items, self.stack = self.stack, []
        assert self.trace is not None
        self._add_events(self.trace, items)

    def _add_events(self, trace: Trace, items: list[Any]) -> None:
        trace.add(items)
        for item in items:
            self.kept_bytes -= _CONTAINER_BYTES + _ITEM_BYTES * len(item)
        for slot in self.slots:
            self.memo[slot] = GONE
        self.slots.clear()

    def _read_frames(self, frames: _Frames) -> object:
        found = self.stacks.read(frames) if frames else NO_FRAMES
        if frames.slot >= 0:
            self.memo[frames.slot] = found
        self.kept_bytes -= _CONTAINER_BYTES + _ITEM_BYTES * len(frames)
        return found


_STOP = ord(".")
_OPCODES: dict[int, Callable[[_Machine], None]] = {
    0x80: _Machine._protocol,
    0x95: _Machine._frame,
    ord("N"): lambda machine: machine._push(None),
    0x88: lambda machine: machine._push(True),
    0x89: lambda machine: machine._push(False),
    ord("K"): lambda machine: machine._unsigned(1),
    ord("M"): lambda machine: machine._unsigned(2),
    ord("J"): lambda machine: machine._push(struct.unpack("<i", machine.window.take(4))[0]),
    ord("G"): lambda machine: machine._push(struct.unpack(">d", machine.window.take(8))[0]),
    0x8A: _Machine._long,
    0x8C: lambda machine: machine._text(1),
    ord("X"): lambda machine: machine._text(4),
    0x8D: lambda machine: machine._text(8),
    0x94: _Machine._memoize,
    ord("q"): lambda machine: machine._put(1),
    ord("r"): lambda machine: machine._put(4),
    ord("h"): lambda machine: machine._get(1),
    ord("j"): lambda machine: machine._get(4),
    ord("("): _Machine._mark,
    ord("}"): _Machine._empty_dict,
    ord("]"): _Machine._empty_list,
    ord("a"): _Machine._append,
    ord("e"): _Machine._appends,
    ord("s"): _Machine._set_item,
    ord("u"): _Machine._set_items,
    0x86: _Machine._pair,
}


def _why_not(opcode: int) -> str:
    if chr(opcode) in "cRioQP\x81\x92\x93b" or opcode in (0x82, 0x83, 0x84):
        return "it asks for code or objects: snapshots hold plain data only"
    return f"it holds something (opcode {opcode:#04x}) that no snapshot holds"
