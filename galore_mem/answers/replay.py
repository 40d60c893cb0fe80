"""Would another setting, or another card, have saved it? A recording through the allocator replica, again and again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from estimators.allocator.layout import PlacedBlock, PlacedSegment
from estimators.allocator.oom import OutOfMemory
from estimators.allocator.parse import parse_settings
from estimators.allocator.replay import Event, Fragmentation, Replayed, fragmentation_at, replay
from estimators.allocator.settings import DEFAULTS, AllocatorSettings
from galore_mem.answers.names import Card
from galore_mem.tapes.tape import DeviceTape, HeldBlock, HeldSegment, Tape
from profiles.errors import InputError
from profiles.gpus import all_gpus

ALTERNATIVES: tuple[str, ...] = ("", "expandable_segments:True", "max_split_size_mb:128", "roundup_power2_divisions:8")
"""Settings every what-if table shows beside the recording's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit to replay under."""

    name: str
    capacity_bytes: int
    """What the driver can give for segments."""
    total_bytes: int
    reason: str
    """Where the capacity comes from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """The same history under other settings, on some card or on one without end."""

    settings: str
    is_recorded: bool
    """These are the settings it was recorded with."""
    card: Limit | None
    peak_reserved_bytes: int
    peak_allocated_bytes: int
    unused_share: float
    """Share of reserved memory that held no block, at the reserved peak."""
    oom: OutOfMemory | None
    smallest_card: str | None
    """Without a card: the smallest one of the catalogue that the reserved peak fits on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReplay:
    """One device's answer."""

    tape: DeviceTape
    events: int
    recorded_peak_bytes: int | None
    """None where no real allocator was recorded."""
    recorded_end_bytes: int | None
    replayed: Replayed
    fragmentation: Fragmentation
    """At the reserved peak."""
    first_difference: int | None
    """The first event after which recorded and replayed reserved bytes differ."""
    what_ifs: tuple[WhatIf, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayAnswer:
    """The whole answer."""

    settings: str
    """What was replayed."""
    recorded_settings: str
    devices: tuple[DeviceReplay, ...]


def replay_tape(tape: Tape, *, alloc_conf: str | None = None, cards: Sequence[Card] = ()) -> ReplayAnswer:
    """Replay every device of a Tape, and the same under other settings and on other cards.

    Args:
        tape: what was recorded.
        alloc_conf: settings as in PYTORCH_CUDA_ALLOC_CONF; the recording's own when None.
        cards: cards to try. The first limits the replay itself.

    Raises:
        InputError: the settings do not parse, or the Tape contradicts itself.
    """
    own, note = _own_settings(tape.settings)
    chosen = own if alloc_conf is None else parse_settings(alloc_conf)
    limits = tuple(map(limit_of, cards))
    devices = tuple(_device(device, own, chosen, limits, note) for device in tape.devices)
    return ReplayAnswer(settings=chosen.text, recorded_settings=tape.settings, devices=devices)


def limit_of(card: Card) -> Limit:
    """What a card leaves for the allocator: usable memory minus others' use and the most a CUDA context takes."""
    gpu = card.gpu
    return Limit(
        name=gpu.name,
        capacity_bytes=max(0, gpu.usable_bytes - card.other_use_bytes - gpu.context_high_bytes),
        total_bytes=gpu.usable_bytes,
        reason="usable memory minus the largest CUDA context seen" + (", and others' use" * bool(card.other_use_bytes)),
    )


def _own_settings(text: str) -> tuple[AllocatorSettings, str]:
    try:
        settings = parse_settings(text)
    except InputError as error:
        return DEFAULTS, f"the recording's settings could not be used ({error.why}): replayed with defaults"
    if settings.backend != "native":
        return DEFAULTS, f"recorded with backend:{settings.backend}: replayed with the native allocator's defaults"
    return settings, ""


class _History:
    """One device's events, ready to be replayed under any settings."""

    def __init__(self, tape: DeviceTape, own: AllocatorSettings) -> None:
        self.tape = tape
        self.own = own
        self.events: list[Event] = list(tape.events.causes())
        self.initial = tuple(map(placed_segment, tape.initial))
        self.addresses = _recorded_addresses(tape)

    def run(self, settings: AllocatorSettings, card: Limit | None) -> Replayed:
        capacity, total = (card.capacity_bytes, card.total_bytes) if card else (None, self.tape.total_bytes)
        if settings.per_process_memory_fraction < 1 and total is None:
            settings = replace(settings, per_process_memory_fraction=1.0)
        if _same(settings, self.own):
            return replay(
                self.events,
                settings,
                initial=self.initial,
                capacity_bytes=capacity,
                total_bytes=total,
                segment_addresses=self.addresses,
            )
        run = replay(self.laid_anew, settings, capacity_bytes=capacity, total_bytes=total)
        return replace(run, ooms=tuple(oom.at(oom.event - self.offset) for oom in run.ooms))

    @property
    def offset(self) -> int:
        """Events that stand before the recording's own when its start is laid anew."""
        return sum(1 + held.pending for segment in self.initial for held in segment.blocks)

    @property
    def laid_anew(self) -> list[Event]:
        """For other settings: what was held is allocated first, as it lay; releases under pressure are not imposed."""
        start: list[Event] = []
        for segment in self.initial:
            for held in segment.blocks:
                start.append(("alloc", held.ident, held.requested, segment.stream, segment.private_pool))
                if held.pending:
                    start.append(("free_requested", held.ident, 0, 0, 0))
        return start + [event for event in self.events if event[0] != "release"]


def _device(
    tape: DeviceTape, own: AllocatorSettings, chosen: AllocatorSettings, cards: tuple[Limit, ...], note: str
) -> DeviceReplay:
    history = _History(tape, own)
    recorded = list(tape.events.reserved_after_causes(tape.start_reserved_bytes)) if tape.has_effects else None
    own_card = _recorded_card(tape)
    limit = cards[0] if cards else own_card
    run = history.run(chosen, limit)
    shift = 0 if _same(chosen, own) else history.offset
    return DeviceReplay(
        tape=tape,
        events=len(history.events),
        recorded_peak_bytes=None if recorded is None else max([tape.start_reserved_bytes, *recorded]),
        recorded_end_bytes=None if recorded is None else _end_reserved(tape),
        replayed=run,
        fragmentation=_fragmentation(history, run, limit),
        first_difference=None if recorded is None else _first_difference(recorded, run, shift),
        what_ifs=tuple(_what_ifs(history, chosen, [*([own_card] if own_card else []), *cards])),
        notes=tuple(_notes(tape, note, limit)),
    )


def _fragmentation(history: _History, run: Replayed, card: Limit | None) -> Fragmentation:
    same = _same(run.settings, history.own)
    return fragmentation_at(
        history.events if same else history.laid_anew,
        run.peak_event,
        run.settings,
        initial=history.initial if same else (),
        capacity_bytes=card.capacity_bytes if card else None,
        total_bytes=card.total_bytes if card else history.tape.total_bytes,
    )


def _first_difference(recorded: Sequence[int], run: Replayed, shift: int) -> int | None:
    replayed = run.series.reserved[shift:]
    for event, (theirs, ours) in enumerate(zip(recorded, replayed, strict=False)):
        if theirs != ours:
            return event
    return None if len(replayed) >= len(recorded) or run.oom is not None else len(replayed)


def _end_reserved(tape: DeviceTape) -> int:
    return tape.start_reserved_bytes + tape.events.reserved_change


def _recorded_card(tape: DeviceTape) -> Limit | None:
    """The card it ran out on: what was held and what the driver still had."""
    for mark in tape.marks:
        if mark.kind == "oom" and mark.value is not None and mark.value >= 0:
            held = tape.start_reserved_bytes + tape.events.reserved_change_before(mark.row)
            capacity = held + mark.value
            return Limit(
                name="its own card",
                capacity_bytes=capacity,
                total_bytes=tape.total_bytes or capacity,
                reason="what it held when it ran out, plus what the driver had left",
            )
    return None


def _recorded_addresses(tape: DeviceTape) -> list[tuple[int, int]]:
    addresses = tape.events.known.get("address")
    if addresses is None:
        return []
    rows = zip(tape.events.rows(), addresses, strict=True)
    return [(row[2], address) for row, address in rows if row[0] == "segment_alloc" and address > 0]


def _same(left: AllocatorSettings, right: AllocatorSettings) -> bool:
    return replace(left, text="") == replace(right, text="")


def _what_ifs(history: _History, chosen: AllocatorSettings, cards: Sequence[Limit]) -> Iterable[WhatIf]:
    rows: list[AllocatorSettings] = []
    for settings in (history.own, chosen, *map(parse_settings, ALTERNATIVES)):
        if not any(_same(settings, row) for row in rows):
            rows.append(settings)
    for settings in rows:
        free = history.run(settings, None)
        for card in cards or (None,):
            needs_run = card is not None and (
                free.peak_reserved_bytes > card.capacity_bytes or settings.per_process_memory_fraction < 1
            )
            run = history.run(settings, card) if needs_run else free
            yield _what_if(settings, _same(settings, history.own), card, run)


def _what_if(settings: AllocatorSettings, is_recorded: bool, card: Limit | None, run: Replayed) -> WhatIf:
    event = run.peak_event
    allocated = run.series.allocated[event] if event >= 0 else run.start_allocated_bytes
    peak = run.peak_reserved_bytes
    return WhatIf(
        settings=settings.text,
        is_recorded=is_recorded,
        card=card,
        peak_reserved_bytes=peak,
        peak_allocated_bytes=run.peak_allocated_bytes,
        unused_share=1 - allocated / peak if peak else 0.0,
        oom=run.oom,
        smallest_card=None if card is not None else _smallest_card(peak),
    )


def _smallest_card(peak_reserved_bytes: int) -> str | None:
    cards = [limit_of(Card(gpu=gpu)) for gpu in all_gpus() if gpu.form != "laptop"]
    enough = [card for card in cards if card.capacity_bytes >= peak_reserved_bytes]
    return min(enough, key=lambda card: card.capacity_bytes).name if enough else None


def _notes(tape: DeviceTape, note: str, limit: Limit | None) -> Iterable[str]:
    if note:
        yield note
    if tape.history == "rebuilt":
        yield (
            "the history began late: what was held at its start was worked out backwards from the final segments; "
            "under other settings it is allocated anew in the order it lay"
        )
    if tape.history == "final":
        yield "the file has segments but no events: there is nothing to replay"
    if limit is not None:
        yield f"limit: {limit.capacity_bytes / 2**30:.2f} GiB for segments on {limit.name} ({limit.reason})"
    yield from tape.notes


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
