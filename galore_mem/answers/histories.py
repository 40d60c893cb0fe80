"""A Tape's history as the allocator replica takes it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

from estimators.allocator.layout import PlacedBlock, PlacedSegment
from estimators.allocator.replay import Event, Fragmentation, Replayed, fragmentation_at, replay
from estimators.allocator.settings import AllocatorSettings
from galore_mem.answers.limits import Limit
from galore_mem.tapes.tape import DeviceTape, HeldBlock, HeldSegment


def same_settings(left: AllocatorSettings, right: AllocatorSettings) -> bool:
    """Whether two settings mean the same, however they are written."""
    return replace(left, text="") == replace(right, text="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One replay of a history."""

    replayed: Replayed
    shift: int
    """Events that stand before the recording's own: allocations of what was held at its start."""

    @property
    def reserved(self) -> Sequence[int]:
        """Reserved bytes after each of the recording's own events."""
        return self.replayed.series.reserved[self.shift :]


class History:
    """One device's events and starting layout, ready to be replayed under any settings."""

    def __init__(self, tape: DeviceTape, own: AllocatorSettings) -> None:
        self.tape = tape
        self.own = own
        self.initial = tuple(map(placed_segment, tape.initial))
        self._addresses = _recorded_addresses(tape)

    @property
    def events(self) -> Iterator[Event]:
        """The recording's own, from the first on."""
        return self.tape.events.each_cause()

    def keeps_start(self, settings: AllocatorSettings, limit: Limit | None) -> bool:
        """Whether the recorded starting layout holds: under its own settings, on a card that has room for it."""
        has_room = limit is None or self.tape.start_reserved_bytes <= limit.capacity_bytes
        return same_settings(settings, self.own) and has_room

    def run(self, settings: AllocatorSettings, limit: Limit | None, *, anew: bool = False) -> Run:
        """Replay under some settings and limit.

        Where the recorded start does not hold (or `anew` says so), what was held is allocated first, in the order it
        lay, and what the recording's allocator released under pressure is not imposed.
        """
        capacity, total = self._room(limit)
        settings = self._usable(settings, total)
        if self.keeps_start(settings, limit) and not anew:
            run = replay(
                self.events,
                settings,
                initial=self.initial,
                capacity_bytes=capacity,
                total_bytes=total,
                segment_addresses=self._addresses,
            )
            return Run(replayed=run, shift=0)
        start = self._start_anew()
        run = replay(self._laid_anew(start), settings, capacity_bytes=capacity, total_bytes=total)
        return Run(
            replayed=replace(run, ooms=tuple(oom.at(oom.event - len(start)) for oom in run.ooms)), shift=len(start)
        )

    def segments(self, limit: Limit | None, event: int) -> tuple[PlacedSegment, ...]:
        """The segment map right after one of the recording's own events, under its own settings."""
        capacity, total = self._room(limit)
        return replay(
            islice(self.events, event + 1),
            self._usable(self.own, total),
            initial=self.initial,
            capacity_bytes=capacity,
            total_bytes=total,
            segment_addresses=self._addresses,
        ).segments

    def fragmentation(self, run: Run, limit: Limit | None) -> Fragmentation:
        """How memory was used at a run's reserved peak."""
        capacity, total = self._room(limit)
        peak = run.replayed.peak_event
        found = fragmentation_at(
            self._laid_anew(self._start_anew()) if run.shift else self.events,
            peak,
            run.replayed.settings,
            initial=() if run.shift else self.initial,
            capacity_bytes=capacity,
            total_bytes=total,
        )
        return replace(found, event=max(-1, peak - run.shift))

    def _room(self, limit: Limit | None) -> tuple[int | None, int | None]:
        return (limit.capacity_bytes, limit.total_bytes) if limit else (None, self.tape.total_bytes)

    @staticmethod
    def _usable(settings: AllocatorSettings, total_bytes: int | None) -> AllocatorSettings:
        """A memory fraction of an unknown total is left out."""
        known = total_bytes is not None or settings.per_process_memory_fraction == 1
        return settings if known else replace(settings, per_process_memory_fraction=1.0)

    def _start_anew(self) -> list[Event]:
        start: list[Event] = []
        for segment in self.initial:
            for held in segment.blocks:
                start.append(("alloc", held.ident, held.requested, segment.stream, segment.private_pool))
                if held.pending:
                    start.append(("free_requested", held.ident, 0, 0, 0))
        return start

    def _laid_anew(self, start: list[Event]) -> Iterator[Event]:
        return chain(start, (event for event in self.events if event[0] != "release"))


def _recorded_addresses(tape: DeviceTape) -> list[tuple[int, int]]:
    addresses = tape.events.known.get("address")
    if addresses is None:
        return []
    rows = zip(tape.events.rows(), addresses, strict=True)
    return [(row[2], address) for row, address in rows if row[0] == "segment_alloc" and address > 0]


def placed_segment(segment: HeldSegment) -> PlacedSegment:
    """A Tape's segment as the replica takes it."""
    return PlacedSegment(
        address=segment.address,
        size=segment.size,
        stream=segment.stream,
        is_small=segment.is_small,
        private_pool=segment.pool,
        is_expandable=segment.is_expandable,
        blocks=tuple(
            PlacedBlock(
                ident=held.block, offset=held.offset, size=held.size, requested=held.requested, pending=held.pending
            )
            for held in segment.blocks
        ),
    )


def held_segment(segment: PlacedSegment) -> HeldSegment:
    """The replica's segment as a Tape holds it; free blocks left out."""
    return HeldSegment(
        address=segment.address,
        size=segment.size,
        stream=segment.stream,
        is_small=segment.is_small,
        pool=segment.private_pool,
        is_expandable=segment.is_expandable,
        blocks=tuple(
            HeldBlock(
                block=block.ident,
                offset=block.offset,
                size=block.size,
                requested=block.requested,
                pending=block.pending,
            )
            for block in segment.blocks
            if isinstance(block.ident, int)
        ),
    )
