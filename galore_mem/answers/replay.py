"""Would another setting, or another card, have saved it? A recording through the allocator replica, again and again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from estimators.allocator.oom import OutOfMemory
from estimators.allocator.parse import parse_settings
from estimators.allocator.replay import Fragmentation, Replayed
from estimators.allocator.settings import DEFAULTS, AllocatorSettings
from galore_mem.answers.histories import History, Run, same_settings
from galore_mem.answers.limits import Limit, limit_of, recorded_limit, smallest_card
from galore_mem.answers.names import Card
from galore_mem.tapes.tape import DeviceTape, Tape
from profiles.errors import InputError

ALTERNATIVES: tuple[str, ...] = ("", "expandable_segments:True", "max_split_size_mb:128", "roundup_power2_divisions:8")
"""Settings every what-if table shows beside the recording's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """The same history under other settings, on some card or on one without end."""

    settings: str
    is_recorded: bool
    """These are the settings it was recorded with."""
    start_anew: bool
    """The history began late, and what was held at its start was allocated anew: compare with other such rows."""
    limit: Limit | None
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
    compared: int
    """Events whose reserved bytes were compared."""
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
    own, note = own_settings(tape.settings)
    chosen = own if alloc_conf is None else parse_settings(alloc_conf)
    limits = tuple(map(limit_of, cards))
    devices = tuple(_device(History(device, own), chosen, limits, note) for device in tape.devices)
    return ReplayAnswer(settings=chosen.text, recorded_settings=tape.settings, devices=devices)


def own_settings(text: str) -> tuple[AllocatorSettings, str]:
    """The settings a recording was made with as the replica can take them, and what had to be left out."""
    try:
        settings = parse_settings(text)
    except InputError as error:
        return DEFAULTS, f"the recording's settings could not be used ({error.why}): replayed with defaults"
    if settings.backend != "native":
        return DEFAULTS, f"recorded with backend:{settings.backend}: replayed with the native allocator's defaults"
    return settings, ""


def _device(history: History, chosen: AllocatorSettings, limits: tuple[Limit, ...], note: str) -> DeviceReplay:
    tape = history.tape
    recorded = tape.events.reserved_after_causes(tape.start_reserved_bytes) if tape.has_effects else None
    own_limit = recorded_limit(tape)
    limit = limits[0] if limits else own_limit
    run = history.run(chosen, limit)
    return DeviceReplay(
        tape=tape,
        events=len(tape.events.cause_rows()),
        recorded_peak_bytes=None if recorded is None else max(tape.start_reserved_bytes, max(recorded, default=0)),
        recorded_end_bytes=None if recorded is None else tape.start_reserved_bytes + tape.events.reserved_change,
        replayed=run.replayed,
        fragmentation=history.fragmentation(run, limit),
        first_difference=None if recorded is None else _first_difference(recorded, run),
        compared=0 if recorded is None else len(run.reserved),
        what_ifs=_once(_what_ifs(history, chosen, (*((own_limit,) if own_limit else ()), *limits))),
        notes=tuple(_notes(tape, note, limit)),
    )


def _first_difference(recorded: Sequence[int], run: Run) -> int | None:
    for event, (theirs, ours) in enumerate(zip(recorded, run.reserved, strict=False)):
        if theirs != ours:
            return event
    return None


def _once(rows: Iterable[WhatIf]) -> tuple[WhatIf, ...]:
    """Each row once: where not even what was held at the start fits, both ways of the recording's settings are one."""
    found: list[WhatIf] = []
    for row in rows:
        if row not in found:
            found.append(row)
    return tuple(found)


def _what_ifs(history: History, chosen: AllocatorSettings, limits: Sequence[Limit]) -> Iterable[WhatIf]:
    """The recording's own settings, those asked for, and the alternatives; on every card."""
    rows: list[AllocatorSettings] = []
    for settings in (history.own, chosen, *map(parse_settings, ALTERNATIVES)):
        if not any(same_settings(settings, row) for row in rows):
            rows.append(settings)
    yield from _on_limits(history, history.own, limits, anew=False)
    for settings in rows if history.initial else rows[1:]:
        yield from _on_limits(history, settings, limits, anew=True)


def _on_limits(
    history: History, settings: AllocatorSettings, limits: Sequence[Limit], *, anew: bool
) -> Iterable[WhatIf]:
    free = history.run(settings, None, anew=anew)
    for limit in limits or (None,):
        run = free
        if limit is not None and (
            free.replayed.peak_reserved_bytes > limit.capacity_bytes or settings.per_process_memory_fraction < 1
        ):
            run = history.run(settings, limit, anew=anew)
        yield _what_if(settings, same_settings(settings, history.own), limit, run)


def _what_if(settings: AllocatorSettings, is_recorded: bool, limit: Limit | None, run: Run) -> WhatIf:
    replayed = run.replayed
    event, peak = replayed.peak_event, replayed.peak_reserved_bytes
    allocated = replayed.series.allocated[event] if event >= 0 else replayed.start_allocated_bytes
    return WhatIf(
        settings=settings.text,
        is_recorded=is_recorded,
        start_anew=run.shift > 0,
        limit=limit,
        peak_reserved_bytes=peak,
        peak_allocated_bytes=replayed.peak_allocated_bytes,
        unused_share=1 - allocated / peak if peak else 0.0,
        oom=replayed.oom,
        smallest_card=None if limit is not None else smallest_card(peak),
    )


def _notes(tape: DeviceTape, note: str, limit: Limit | None) -> Iterable[str]:
    if note:
        yield note
    if tape.history == "rebuilt":
        yield "the history began late: what was held at its start was worked out backwards from the final segments"
    if tape.history == "final":
        yield "the file has segments but no events: there is nothing to replay"
    if limit is not None:
        yield f"limit: {limit.capacity_bytes / 2**30:.2f} GiB for segments on {limit.name} ({limit.reason})"
    yield from tape.notes
