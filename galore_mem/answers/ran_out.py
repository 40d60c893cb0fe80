"""A run that ran out of memory: what was asked for, what lived, and the cheapest change that would have avoided it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from estimators.workload import Workload
from galore_mem.answers.limits import recorded_limit
from galore_mem.answers.names import Card
from galore_mem.answers.replay import DeviceReplay
from galore_mem.answers.ways_out import Way, ways_out
from galore_mem.profiler.recording import Life, Recording, alive_at, rounded
from galore_mem.tapes.tape import DeviceTape
from galore_mem.witness import HOST
from profiles.errors import InputError
from profiles.shapes import UncoveredShape

LARGEST = 5
_LIVES = frozenset({"alloc", "free", "free_requested"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RanOut:
    """Where a run ended, or would have ended on a card."""

    where: str
    """`this GPU`, or the card whose limit the replica of the allocator ran into."""
    requested_bytes: int
    limit_bytes: int | None
    """What the allocator could hold in all."""
    reserved_bytes: int | None
    """What it held then."""
    iteration: str
    window: str
    module: str
    """Where in the model the allocation before it was made; empty outside of it."""
    by_category: dict[str, int]
    """Live bytes then."""
    largest: tuple[Life, ...]
    ways: tuple[Way, ...]
    """Single changes that would have avoided it, by the closed form, cheapest first; several where none suffices."""

    @property
    def live_bytes(self) -> int:
        """All categories together."""
        return sum(self.by_category.values())

    def to_dict(self) -> dict[str, Any]:
        """The `ran_out` object of the JSON output."""
        return {
            "where": self.where,
            "requested_bytes": self.requested_bytes,
            "limit_bytes": self.limit_bytes,
            "reserved_bytes": self.reserved_bytes,
            "iteration": self.iteration,
            "window": self.window,
            "module": self.module,
            "live_bytes": self.live_bytes,
            "by_category": self.by_category,
            "largest": [
                {"bytes": life.nbytes, "category": life.category, "module": life.module, "operator": life.operator}
                for life in self.largest
            ],
            "ways_out": [way.to_dict() for way in self.ways],
        }


def ran_out_on_gpu(
    workload: Workload, recording: Recording, tape: DeviceTape, cards: Sequence[Card], allowed_bytes: int
) -> RanOut | None:
    """From the history of a run that an OutOfMemoryError ended.

    Args:
        workload: the run.
        recording: the attributed history.
        tape: the same, with torch's own `oom` entry.
        cards: the GPU, where it is known.
        allowed_bytes: what the process may take of it.

    Returns:
        None where the history has no such entry: something else than the allocator ran out.
    """
    rows = list(tape.events.rows())
    last = max((row for row, event in enumerate(rows) if event[0] == "oom"), default=None)
    if last is None:
        return None
    held = len(recording.events) - sum(event[0] in _LIVES for event in rows)
    position = held + sum(event[0] in _LIVES for event in rows[:last])
    reserved = tape.start_reserved_bytes + tape.events.reserved_change_before(last)
    limit = recorded_limit(tape)
    return _ran_out(
        workload,
        recording,
        position,
        where="this GPU",
        requested_bytes=rows[last][2],
        limit_bytes=limit.capacity_bytes if limit is not None else None,
        reserved_bytes=reserved,
        cards=[
            replace(card, gpu=replace(card.gpu, usable_bytes=min(card.gpu.usable_bytes, allowed_bytes)))
            for card in cards
        ],
    )


def _capped(card: Card, allowed_bytes: int) -> Card:
    return replace(card, gpu=replace(card.gpu, usable_bytes=min(card.gpu.usable_bytes, allowed_bytes)))


def ran_out_in_replay(
    workload: Workload, recording: Recording, replayed: DeviceReplay, cards: Sequence[Card]
) -> RanOut | None:
    """Where the replica of the allocator ran into the first card's limit; None where it did not."""
    oom = replayed.replayed.oom
    if oom is None:
        return None
    position, seen = 0, -1
    while seen < oom.event:
        seen += recording.lives[abs(recording.events[position]) - 1].category != HOST
        position += 1
    return _ran_out(
        workload,
        recording,
        position - 1,
        where=cards[0].gpu.name,
        requested_bytes=oom.requested_bytes,
        limit_bytes=oom.limit_bytes,
        reserved_bytes=oom.reserved_bytes,
        cards=cards,
    )


def _ran_out(
    workload: Workload,
    recording: Recording,
    position: int,
    *,
    where: str,
    requested_bytes: int,
    limit_bytes: int | None,
    reserved_bytes: int | None,
    cards: Sequence[Card],
) -> RanOut:
    """After so many events."""
    alive = alive_at(recording, position)
    totals: dict[str, int] = {}
    for life in alive:
        totals[life.category] = totals.get(life.category, 0) + rounded(life.nbytes)
    iteration, window = next(
        ((iteration, window) for begin, end, iteration, window in recording.stretches() if begin <= position < end),
        next(((it, window) for _, _, it, window in reversed(list(recording.stretches()))), ("", "between")),
    )
    born = [code for code in recording.events[max(0, position - 50) : position] if code > 0]
    ways: tuple[Way, ...] = ()
    if cards and not isinstance(workload.model, UncoveredShape):
        with suppress(InputError):  # the closed form may know no such run
            ways = ways_out(workload, cards[0].gpu, other_use_bytes=cards[0].other_use_bytes)
    return RanOut(
        where=where,
        requested_bytes=requested_bytes,
        limit_bytes=limit_bytes,
        reserved_bytes=reserved_bytes,
        iteration=iteration,
        window=window,
        module=recording.lives[born[-1] - 1].module if born else "",
        by_category=dict(sorted(totals.items(), key=lambda item: -item[1])),
        largest=tuple(alive[:LARGEST]),
        ways=ways,
    )
