"""Events in columns: compact in memory, quick to append to, quick to read."""

from array import array
from collections.abc import Iterator, Sequence
from itertools import compress

ACTIONS: tuple[str, ...] = (
    "alloc",
    "free",
    "free_requested",
    "free_completed",
    "record_stream",
    "empty_cache",
    "release",
    "oom",
    "release_pool",
    "segment_alloc",
    "segment_free",
    "segment_map",
    "segment_unmap",
)
"""What a row records. The first nine are causes: what the program did, and (`release`, `oom`) what it ran into. The
`segment_*` rows are effects: what a real allocator took from the driver and gave back. They stand before their
cause."""

EFFECTS: dict[str, int] = {"segment_alloc": 1, "segment_map": 1, "segment_free": -1, "segment_unmap": -1}
"""Effects, and whether they add to reserved memory or take from it."""

TEXTS = ("category", "phase", "module", "operator", "tag")
OPTIONAL = ("time_us", "address", *TEXTS)
ACTION_CODES = {action: code for code, action in enumerate(ACTIONS)}
FIRST_EFFECT = ACTION_CODES["segment_alloc"]

Row = tuple[str, int, int, int, int]


class EventTable:
    """Ordered allocator events of one device.

    A row has an action, the block it concerns (numbered by whoever records), requested bytes, stream and private pool,
    and where known a time, an address, and five texts: category, phase, module, operator, and a tag of the program's
    own. Optional columns exist once something is known.
    """

    __slots__ = ("_ids", "action", "block", "known", "names", "pool", "size", "stream")

    def __init__(self) -> None:
        self.action = array("B")
        """Positions in `ACTIONS`."""
        self.block = array("q")
        self.size = array("q")
        self.stream = array("q")
        self.pool = array("q")
        self.known: dict[str, array[int]] = {}
        """The optional columns; of texts, positions in `names`."""
        self.names: list[str] = [""]
        self._ids: dict[str, int] = {"": 0}

    def __len__(self) -> int:
        """Rows, effects included."""
        return len(self.action)

    def append(
        self, action: str, block: int = 0, size: int = 0, stream: int = 0, pool: int = 0, **known: int | str
    ) -> None:
        """Record one event.

        Args:
            action: one of `ACTIONS`.
            block: the recorder's number for the block; each number is allocated once.
            size: bytes requested (or, for segments, taken and given back).
            stream: the stream's handle.
            pool: private pool; 0 is the default pool.
            known: `time_us`, `address`, `category`, `phase`, `module`, `operator`, `tag`.

        Raises:
            KeyError: no such action.
            TypeError: no such column.
        """
        self.action.append(ACTION_CODES[action])
        self.block.append(block)
        self.size.append(size)
        self.stream.append(stream)
        self.pool.append(pool)
        for name, value in known.items():
            column = self.known.get(name)
            if column is None:
                column = self._new_column(name)
            column.append(self.intern(value) if isinstance(value, str) else value)
        if len(self.known) > len(known):
            for name, column in self.known.items():
                if name not in known:
                    column.append(0)

    def extend(self, actions: Sequence[str], blocks: Sequence[int], sizes: Sequence[int], **known: list[int]) -> None:
        """Record many events of the default stream and pool at once.

        Args:
            actions: of `ACTIONS`.
            blocks: the recorder's numbers.
            sizes: bytes requested.
            known: optional columns as in `append`, texts as positions in `names`; the same ones in every call.
        """
        count, before = len(actions), len(self.action)
        self.action.extend(map(ACTION_CODES.__getitem__, actions))
        self.block.extend(blocks)
        self.size.extend(sizes)
        zeros = array("q", bytes(8 * count))
        self.stream.extend(zeros)
        self.pool.extend(zeros)
        for name in known.keys() | self.known.keys():
            if name not in OPTIONAL:
                raise TypeError(f"an event has no column {name!r}")
            column = self.known.setdefault(name, array("q", bytes(8 * before)))
            column.extend(known.get(name, zeros))

    def _new_column(self, name: str) -> "array[int]":
        """An optional column, empty for the rows before the last."""
        if name not in OPTIONAL:
            raise TypeError(f"an event has no column {name!r}")
        column = self.known[name] = array("q", bytes(8 * (len(self.action) - 1)))
        return column

    def intern(self, text: str) -> int:
        """The position of a text in `names`, added if new."""
        number = self._ids.get(text)
        if number is None:
            number = self._ids[text] = len(self.names)
            self.names.append(text)
        return number

    def set_names(self, names: list[str]) -> None:
        """Take over a table of texts; the first is always the empty one."""
        self.names = names
        self._ids = {name: number for number, name in enumerate(names)}

    def rows(self) -> Iterator[Row]:
        """(action, block, size, stream, pool) in order, effects included."""
        return zip(map(ACTIONS.__getitem__, self.action), self.block, self.size, self.stream, self.pool, strict=True)

    def causes(self) -> list[Row]:
        """The rows that are not effects: what an allocator replica is fed."""
        return list(self.each_cause())

    def each_cause(self) -> Iterator[Row]:
        """The same one by one: a list of a long history's rows takes several times the table's memory."""
        return compress(self.rows(), map(FIRST_EFFECT.__gt__, self.action))

    def cause_rows(self) -> "array[int]":
        """The position in the table of each row of `causes`."""
        return array("q", (row for row, code in enumerate(self.action) if code < FIRST_EFFECT))

    def text(self, column: str, row: int) -> str:
        """A text of one row, empty where unknown."""
        values = self.known.get(column)
        return self.names[values[row]] if values is not None else ""

    def number(self, column: str, row: int) -> int | None:
        """A number of one row, None where its column is unknown."""
        values = self.known.get(column)
        return values[row] if values is not None else None

    def reserved_after_causes(self, start: int) -> "array[int]":
        """Recorded reserved bytes after each row of `causes`, from the effects; `start` is held before the first."""
        series, held = array("q"), start
        for action, size in zip(map(ACTIONS.__getitem__, self.action), self.size, strict=True):
            sign = EFFECTS.get(action)
            if sign is None:
                series.append(held)
            else:
                held += sign * size
        return series

    @property
    def reserved_change(self) -> int:
        """What all effects together added to reserved memory."""
        return self.reserved_change_before(len(self))

    def reserved_change_before(self, row: int) -> int:
        """What the effects before a row added to reserved memory."""
        signs = [EFFECTS.get(action, 0) for action in ACTIONS]
        return sum(signs[code] * size for code, size in zip(self.action[:row], self.size[:row], strict=True))
