"""Category, phase and module of every allocation in a history that torch recorded, from the stamps left beside it."""

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from galore_mem.profiler.recording import PHASES, Life, Recording
from galore_mem.profiler.stamps import Stamp
from galore_mem.profiler.to_tape import marked_stretches
from galore_mem.tapes.snapshot import tape_from_snapshot
from galore_mem.tapes.table import EventTable
from galore_mem.tapes.tape import DeviceTape, Mark, Tape

UNATTRIBUTED = "unattributed"
"""Category of allocations that no claim, no window and no rule explains."""
_UPDATES = frozenset({"clip", "step", "refresh", "layer_update"})
_OUTSIDE_THE_MODEL = _UPDATES | {"between"}
_CAUSES = frozenset({"alloc", "free_requested"})
_BIRTHS_AND_DEATHS = frozenset({"alloc", "free", "free_requested"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Allocations that are known by their size where nothing claims them."""

    workspaces: frozenset[int] = frozenset()
    """What cuBLAS may take for a thread; it never gives it back."""
    logits: frozenset[int] = frozenset()
    """Logits of a micro-batch, in every dtype they may have."""
    shared_gradients: frozenset[int] = frozenset()
    """Gradients of weights that are used twice: each half lives until they are added, and no hook sees it."""


@dataclass(slots=True)
class _Birth:
    window: str
    in_forward: bool
    in_scope: bool
    is_saved: bool = False


def attribute(
    entries: Sequence[Mapping[str, Any]],
    tape: DeviceTape,
    stamps: Sequence[Stamp],
    *,
    events_seen: int,
    sizes: Sizes | None = None,
) -> Recording:
    """Lives with category, module and operator, and each event's window and iteration.

    Args:
        entries: one device's trace, as torch wrote it.
        tape: the same as a Tape, for what was held before the first entry and for operators.
        stamps: in the order they were made.
        events_seen: allocations and frees that were counted when the history ended: from there the entries are counted
            backwards, because torch's ring buffer drops the oldest without a word.
        sizes: allocations known by their size.
    """
    return _Walk(tape, stamps, sizes or Sizes()).run(entries, events_seen)


def measured_tape(
    snapshot: Any,  # noqa: ANN401
    gpu: Any,  # noqa: ANN401
    stamps: Sequence[Stamp],
    *,
    events_seen: int,
    sizes: Sizes,
    metadata: Mapping[str, Any],
) -> tuple[Tape, Recording]:
    """What torch recorded on one GPU as a Tape that says what everything was for, and the same as lives.

    Args:
        snapshot: as torch returns it.
        gpu: a `galore_mem.profiler.cuda.Gpu`: its name and total memory.
        stamps: in the order they were made.
        events_seen: allocations and frees that were counted when the history ended.
        sizes: allocations known by their size.
        metadata: workload, environment: plain JSON values.
    """
    whole = tape_from_snapshot(snapshot)
    index = int(str(gpu.name).rpartition(":")[2])
    nothing = DeviceTape(device=index, events=EventTable())
    device = next((device for device in whole.devices if device.device == index), nothing)
    traces = snapshot.get("device_traces", [])
    entries = traces[index] if index < len(traces) else []
    recording = attribute(entries, device, stamps, events_seen=events_seen, sizes=sizes)
    device = replace(annotated(device, recording), total_bytes=gpu.total_bytes)
    return Tape(devices=(device,), settings=whole.settings, source="measured", metadata=metadata), recording


class _Walk:
    def __init__(self, tape: DeviceTape, stamps: Sequence[Stamp], sizes: Sizes) -> None:
        self.recording = Recording()
        self.births: list[_Birth] = []
        self.sizes = sizes
        self.tape = tape
        self.stamps = stamps
        self.next_stamp = 0
        self.window, self.iteration = "between", ""
        self.path, self.in_forward = "", False
        self.scope: list[str] = []
        self.alive: dict[int, int] = {}
        """Number of the life by its address."""

    def run(self, entries: Sequence[Mapping[str, Any]], events_seen: int) -> Recording:
        for segment in self.tape.initial:
            for held in segment.blocks:
                if not held.pending:
                    self._bear(segment.address + held.offset, held.requested, "held before the recording")
        counted = sum(entry["action"] in _CAUSES for entry in entries)
        position = events_seen - counted
        operators = _operators(self.tape.events)
        for entry in entries:
            action = entry["action"]
            if action not in _CAUSES:
                continue
            self._apply_until(position)
            position += 1
            if action == "alloc":
                self._bear(entry["addr"], entry["size"], next(operators, ""))
            elif entry["addr"] in self.alive:
                self._event(-self.alive.pop(entry["addr"]) - 1)
        self._apply_until(position)
        self._decide()
        return self.recording

    def _apply_until(self, position: int) -> None:
        while self.next_stamp < len(self.stamps) and self.stamps[self.next_stamp].position <= position:
            self._apply(self.stamps[self.next_stamp])
            self.next_stamp += 1

    def _apply(self, stamp: Stamp) -> None:
        if stamp.kind == "window":
            self.window, self.iteration = stamp.name, stamp.detail
            self.recording.borders.append((len(self.recording.events), self.iteration, self.window))
        elif stamp.kind == "place":
            self.path, self.in_forward = stamp.name, stamp.detail == "forward"
        elif stamp.kind == "scope":
            self.scope.append(stamp.name)
        elif stamp.kind == "unscope":
            self.scope.pop()
        else:
            number = self._life_at(stamp.address)
            if number is None:
                return
            if stamp.kind == "saved":
                self.births[number].is_saved = True
                return
            life = self.recording.lives[number]
            life.category = stamp.name
            life.module = stamp.detail or life.module

    def _life_at(self, address: int) -> int | None:
        """The living block that an address lies in: storages may begin inside one."""
        number = self.alive.get(address)
        if number is not None:
            return number
        starts = sorted(self.alive)
        index = bisect_right(starts, address) - 1
        if index < 0:
            return None
        number = self.alive[starts[index]]
        return number if address < starts[index] + self.recording.lives[number].nbytes else None

    def _bear(self, address: int, nbytes: int, operator: str) -> None:
        number = len(self.recording.lives)
        category = self.scope[-1] if self.scope else ""
        module = "" if self.window in _OUTSIDE_THE_MODEL else self.path
        self.recording.lives.append(Life(nbytes=nbytes, operator=operator, module=module, category=category))
        self.births.append(_Birth(self.window, self.in_forward, bool(self.scope)))
        self.alive[address] = number
        self._event(number + 1)

    def _event(self, code: int) -> None:
        self.recording.events.append(code)

    def _decide(self) -> None:
        """Name what nobody claimed by its size, and by where in the step it was born."""
        remaining = set(self.alive.values())
        for number, (life, birth) in enumerate(zip(self.recording.lives, self.births, strict=True)):
            if not life.category:
                life.category = self._category(life, birth, remains=number in remaining)

    def _category(self, life: Life, birth: _Birth, *, remains: bool) -> str:
        if remains and life.nbytes in self.sizes.workspaces:
            return "workspaces"
        if birth.window in _UPDATES:
            return "temporaries"
        if birth.window == "between":
            return UNATTRIBUTED
        if life.nbytes in self.sizes.logits:
            return "logits"
        if birth.window.startswith("backward") and life.nbytes in self.sizes.shared_gradients:
            return "gradients"
        if birth.window.startswith("backward") and not birth.in_forward and not birth.is_saved:
            return "temporaries"
        return "activations"


def _operators(table: EventTable) -> Iterator[str]:
    """The program's innermost frame at each allocation, in order."""
    column = table.known.get("operator")
    if column is None:
        return iter(())
    rows = (row for row, event in enumerate(table.rows()) if event[0] == "alloc")
    return (table.names[column[row]] for row in rows)


def annotated(tape: DeviceTape, recording: Recording) -> DeviceTape:
    """The Tape with what is known of each allocation and free, and with marks where windows begin."""
    table, lives = tape.events, recording.lives
    category, phase, module = (array("q", bytes(8 * len(table))) for _ in range(3))
    rows = array("q", (row for row, event in enumerate(table.rows()) if event[0] in _BIRTHS_AND_DEATHS))
    held = len(recording.events) - len(rows)
    marks: list[Mark] = []
    for begin, end, window, names in marked_stretches(recording):
        place = max(0, begin - held)
        row = rows[place] if place < len(rows) else len(table)
        marks += [Mark(row=row, kind=kind, name=name) for kind, name in names]
        number = table.intern(PHASES[window])
        for position in range(max(begin, held), end):
            row, life = rows[position - held], lives[abs(recording.events[position]) - 1]
            category[row], phase[row] = table.intern(life.category), number
            module[row] = table.intern(life.module)
    table.known.update(category=category, phase=phase, module=module)
    return replace(tape, events=table, marks=tuple(sorted([*tape.marks, *marks], key=lambda mark: mark.row)))
