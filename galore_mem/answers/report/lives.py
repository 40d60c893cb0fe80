"""A Tape's events as the lives of blocks: who is born, who dies, and when."""

from array import array
from bisect import bisect_left

from galore_mem.tapes.table import ACTION_CODES, FIRST_EFFECT
from galore_mem.tapes.tape import DeviceTape

ALIGNMENT_BYTES = 512
"""The CUDA caching allocator rounds every request up to this."""
START = -1
"""Birth of what was held before the first event."""

_ALLOC = ACTION_CODES["alloc"]
_FREES = (ACTION_CODES["free"], ACTION_CODES["free_requested"])


class Lives:
    """Blocks in columns, numbered in the order of their births; events are a Tape's causes.

    Attributes:
        birth: the event of each birth; `START` for what was there before.
        death: the event of each death; the number of events for what outlives them.
        nbytes: bytes requested.
        rounded: the same, rounded up to 512 B: what counts as live.
        row: the table's row of each birth; -1 for what was there before.
        block: the Tape's number of each block.
        at_event: per event, a life's number plus one for a birth, its negative for a death, 0 for neither.
    """

    def __init__(self, tape: DeviceTape) -> None:
        table = tape.events
        self.tape = tape
        self.birth, self.death = array("q"), array("q")
        self.nbytes, self.rounded = array("q"), array("q")
        self.row, self.block = array("q"), array("q")
        self.at_event = array("q")
        self.event_rows = table.cause_rows()
        alive: dict[int, int] = {}
        for segment in tape.initial:
            for held in segment.blocks:
                alive[held.block] = len(self.birth)
                self._bear(START, held.block, 0 if held.pending else held.requested, -1)
        event = 0
        note = self.at_event.append
        for row, (code, block, size) in enumerate(zip(table.action, table.block, table.size, strict=True)):
            if code >= FIRST_EFFECT:
                continue
            if code == _ALLOC:
                alive[block] = len(self.birth)
                self._bear(event, block, size, row)
                note(len(self.birth))
            elif code in _FREES:
                number = alive.pop(block, None)
                if number is not None:
                    self.death[number] = event
                note(0 if number is None else -number - 1)
            else:
                note(0)
            event += 1
        for number, death in enumerate(self.death):
            if death < 0:
                self.death[number] = event

    def _bear(self, event: int, block: int, size: int, row: int) -> None:
        self.birth.append(event)
        self.death.append(-2)
        self.nbytes.append(size)
        self.rounded.append(-(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES)
        self.row.append(row)
        self.block.append(block)

    def __len__(self) -> int:
        """Blocks."""
        return len(self.birth)

    @property
    def events(self) -> int:
        """Events of the Tape, effects left out."""
        return len(self.at_event)

    def text(self, column: str, number: int) -> str:
        """A text of a block's birth; empty where nothing is known."""
        row = self.row[number]
        return self.tape.events.text(column, row) if row >= 0 else ""

    def event_of_row(self, row: int) -> int:
        """The event that a row of the table is, or that comes next."""
        return bisect_left(self.event_rows, row)

    def alive_after(self, event: int) -> list[int]:
        """Blocks alive after an event (`START`: before the first)."""
        return [
            number
            for number, (birth, death) in enumerate(zip(self.birth, self.death, strict=True))
            if birth <= event < death
        ]
