"""The events of a trace, read many at a time.

Almost every event of a snapshot is written in one shape: a dict of the same keys in the same order, whose values are
numbers, short texts, or known objects, with a list of known frames among them. Once the shape has been seen, a regular
expression takes a run of such events apart, and each key's values become a column. What has another shape (the first
of its kind, or an event with a frame of the pickle's own in its middle) is left to the machine.
"""

import re
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from galore_mem.tapes.checks import a_size, refuse
from galore_mem.tapes.stacks import NO_FRAMES, Stacks
from galore_mem.tapes.trace import Trace, action_code
from galore_mem.tapes.window import Window

GONE = object()
"""In the memo: an event that became a row."""

_AHEAD_BYTES = 1 << 16
_MOST_REMEMBERED_BYTES = 32 << 20
"""By each of the tables of what bytes mean."""
_LONGEST_TEXT = 60

_GET = rb"h.|j.{4}"
_NUMBER = rb"K.|M..|J.{4}|\x8a(?:\x06.{6}|\x08.{8}|\x07.{7}|\x05.{5}|\x04.{4}|\x03.{3}|\x02..|\x01.|\x00)"
_TEXT = b"\x8c(?:%s)\x94?" % b"|".join(b"%s.{%d}" % (re.escape(bytes([n])), n) for n in range(_LONGEST_TEXT))
_PAIR = rb"K.K.\x86\x94?"
_FRAMES = rb"\]\x94?(?:\((?:%s)*+e|(?:%s)a)?" % (_GET, _GET)
_CONSTANT = b"[N\x88\x89]"
_ANY = b"|".join((_GET, _PAIR, _NUMBER, _FRAMES, _TEXT, b"[N\x88\x89]"))
_NUMBERS = ("addr", "size", "stream", "time_us")
_VALUES = {"action": _GET, **dict.fromkeys(_NUMBERS, _NUMBER)}
"""How values may be written; of other keys as in `_ANY`."""
_EVENT = re.compile(b"}\x94?\\(((?:(?:%s)(?:%s))*+)u" % (_GET, _ANY), re.DOTALL)
_ITEM = re.compile(b"(%s)(?:%s)" % (_GET, _ANY), re.DOTALL)
_REFERENCE = re.compile(_GET, re.DOTALL)
_GETS = (b"h", b"j")
_CONSTANTS = {b"N": None, b"\x88": True, b"\x89": False}
_NOTHING = object()
_MEMOIZED = {b"\x94": GONE, b"": _NOTHING}
_MOST_SHAPES = 16

Keys = tuple[tuple[bytes, str], ...]
"""(how it is written, name)."""


class _Shape:
    """Keys in an order in which events have them; any of them may be missing."""

    def __init__(self, keys: Keys) -> None:
        self.names = tuple(name for _, name in keys)
        self.events = re.compile(_events(keys, b"("), re.DOTALL).findall
        self.run = re.compile(b"(?:%s)*+" % _events(keys, b"(?:"), re.DOTALL).match


def _events(keys: Keys, group: bytes) -> bytes:
    items = (b"(?:%s%s%s))?" % (re.escape(key), group, _VALUES.get(name, _ANY)) for key, name in keys)
    return b"}%s\x94?)\\(%su" % (group, b"".join(items))


class _Known(dict[bytes, Any]):
    """What bytes mean, worked out once as long as there is room."""

    def __init__(self, meaning: Callable[[bytes], Any]) -> None:
        super().__init__()
        self._meaning = meaning
        self._bytes = 0

    def __missing__(self, raw: bytes) -> Any:  # noqa: ANN401
        if self._bytes > _MOST_REMEMBERED_BYTES:
            self.clear()
            self._bytes = 0
        self._bytes += len(raw) + 100
        found = self[raw] = self._meaning(raw)
        return found


class Entries:
    """Reads the events that lie ahead in a window.

    Args:
        window: the file.
        memo: of the machine that reads the rest; events add to it what they memoize.
        stacks: what lists of frames tell.
    """

    def __init__(self, window: Window, memo: list[Any], stacks: Stacks) -> None:
        self._window = window
        self._memo = memo
        self._stacks = stacks
        self._shapes: dict[Keys, _Shape] = {}
        self._meant = _Known(self._value)
        self._made = _Known(self._memoized)
        self._numbers = _Known(_number)
        self._codes = _Known(self._code)

    def read_into(self, trace: Trace) -> bool:
        """Read events up to the first of another shape; whether there were any."""
        found = False
        while self._window.ahead(_AHEAD_BYTES) and (self._read_run(trace) or self._learn()):
            found = True
        return found

    def _read_run(self, trace: Trace) -> bool:
        """Events of the shapes that are known."""
        window = self._window
        for shape in self._shapes.values():
            run = shape.run(window.data, window.position)
            if run is not None and run.end() > window.position:
                opened, *columns = zip(*shape.events(window.data, window.position, run.end()), strict=True)
                window.position = run.end()
                self._take(trace, opened, dict(zip(shape.names, columns, strict=True)))
                return True
        return False

    def _learn(self) -> bool:
        """See the shape of the event ahead; whether it was new."""
        window, memo = self._window, self._memo
        event = _EVENT.match(window.data, window.position)
        if event is None or len(self._shapes) >= _MOST_SHAPES:
            return False
        keys = tuple((key, memo[_index(key)]) for key in _ITEM.findall(window.data, *event.span(1)))
        names = [name for _, name in keys]
        if keys in self._shapes or len(set(names)) < len(names) or not {"action", "addr", "size"} <= set(names):
            return False
        self._shapes[keys] = _Shape(keys)
        self._shapes = dict(sorted(self._shapes.items(), key=lambda item: -len(item[0])))  # most keys first: fits most
        return True

    def _take(self, trace: Trace, opened: Sequence[bytes], columns: dict[str, Sequence[bytes]]) -> None:
        """Memoize what a run of events memoizes, and add its rows."""
        made = [map(self._made.__getitem__, column) for name, column in columns.items() if name not in _VALUES]
        rows = zip(map(_MEMOIZED.__getitem__, opened), *made, strict=True)
        self._memo.extend(value for row in rows for value in row if value is not _NOTHING)
        missing = (b"",) * len(opened)
        sizes, times, pools = columns["size"], columns.get("time_us", missing), columns.get("pool_id", missing)
        if b"" in sizes:
            a_size(None, "a size")
        number, meaning = self._numbers.__getitem__, self._meant.__getitem__
        trace.extend(
            array("B", map(self._codes.__getitem__, columns["action"])),
            address=array("q", map(number, columns["addr"])),
            size=array("q", map(number, sizes)),
            stream=array("q", map(number, columns.get("stream", missing))),
            time_us=None if b"" in times else array("q", map(_number, times)),
            frames=map(self._referred, columns.get("frames", missing)),
            metadata=map(meaning, columns.get("user_metadata", missing)),
            compiled=map(meaning, columns.get("compile_context", missing)),
            pools=None if b"" in pools else map(meaning, pools),
        )

    def _referred(self, raw: bytes) -> object:
        """What frames mean; references to known ones differ from event to event and are not remembered."""
        return self._memo[int.from_bytes(raw[1:], "little")] if raw[:1] in _GETS else self._meant[raw]

    def _value(self, raw: bytes) -> object:
        if not raw:
            return None
        if raw[:1] in _GETS:
            value = self._memo[_index(raw)]
            return value if value is not GONE else refuse("it refers back to an event")
        if raw[:1] == b"]":
            frames = [self._memo[_index(get)] for get in _REFERENCE.findall(raw, 1)]
            return self._stacks.read(frames) if frames else NO_FRAMES
        if raw[0] == 0x8C:
            return raw[2 : 2 + raw[1]].decode("utf-8", "surrogatepass")
        if _is_pair(raw):
            return raw[1], raw[3]
        return _CONSTANTS[raw] if raw in _CONSTANTS else _number(raw)

    def _memoized(self, raw: bytes) -> object:
        """What a value adds to the memo."""
        if raw[:1] == b"]":
            return self._meant[raw] if raw[1:2] == b"\x94" else _NOTHING
        if raw[:1] == b"\x8c":
            return self._meant[raw] if len(raw) > 2 + raw[1] else _NOTHING
        return self._meant[raw] if _is_pair(raw) and len(raw) > 5 else _NOTHING

    def _code(self, raw: bytes) -> int:
        return action_code(self._value(raw))


def _is_pair(raw: bytes) -> bool:
    return raw[:1] == b"K" and len(raw) > 2


def _index(reference: bytes) -> int:
    return int.from_bytes(reference[1:], "little")


def _number(raw: bytes) -> int:
    if raw[:1] == b"\x8a":
        return int.from_bytes(raw[2:], "little", signed=True)
    return int.from_bytes(raw[1:], "little", signed=raw[:1] == b"J")
