"""What the fuzzer calls: each takes bytes and may only refuse them. Anything else it raises is a finding."""

import pickle
from contextlib import suppress
from typing import Any

from estimators.allocator.parse import parse_settings
from estimators.allocator.replay import replay
from estimators.allocator.sizes import block_bytes, segment_bytes
from galore_mem.answers.histories import placed_segment
from galore_mem.tapes.checks import Refusal
from galore_mem.tapes.file import tape_bytes, tape_from_bytes
from galore_mem.tapes.recording import recording_from_bytes
from galore_mem.tapes.snapshot import tape_from_snapshot
from galore_mem.tapes.tape import Tape
from profiles.errors import InputError
from tests.galore_mem.tapes import snapshots

_MOST_EVENTS = 2_000


def recording(data: bytes) -> None:
    """A file: whatever is accepted can be replayed or refused, and written and read again."""
    try:
        tape = recording_from_bytes(data)
    except Refusal as refusal:
        _check_line(str(refusal))
    else:
        _use(tape)


def settings(data: bytes) -> None:
    """A settings string: whatever is accepted gives sizes that make sense."""
    try:
        how = parse_settings(data.decode("utf-8", "surrogateescape"))
    except InputError as error:
        _check_line(str(error))
        return
    for request in (0, 1, 511, 4097, 1 << 20, (1 << 20) + 1, 10 << 20, (3 << 30) + 5):
        size = block_bytes(request, how)
        if not (size >= request and size % 512 == 0 and segment_bytes(size, how) >= size):
            raise AssertionError(f"a request of {request} gets a block of {size}")


def content(data: bytes) -> None:
    """An unpickled snapshot, with parts exchanged as the bytes say."""
    steps = iter(data)
    made: Any = pickle.loads(_GOOD)
    with suppress(StopIteration):
        while True:
            made = _exchange(made, steps)
    try:
        tape = tape_from_snapshot(made)
    except Refusal as refusal:
        _check_line(str(refusal))
    else:
        _use(tape)


_GOOD = pickle.dumps(snapshots.snapshot(snapshots.program(seed=1, length=12)))
_STRANGERS: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 511, 512, 1 << 21, 1 << 33, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64),
    *("", "alloc", "oom", "segment_map", "segment_unmap", "small", "large", "inactive", "active_pending_free", "N/A"),
    *(b"", 0.5, float("nan"), (0, 0), (1, 2), (0, "x"), [], {}, [[]], [{}], {"name": "f", "filename": "f.py"}),
)


def _exchange(made: Any, steps: Any) -> Any:  # noqa: ANN401 - any part of a snapshot
    """Walk down a few levels, then exchange, drop, double or swap what is there."""
    spot, parents = made, []
    for _ in range(next(steps) % 5):
        keys = list(spot) if type(spot) is dict else list(range(len(spot))) if type(spot) is list else []
        if not keys:
            break
        key = keys[next(steps) % len(keys)]
        parents.append((spot, key))
        spot = spot[key]
    if not parents:
        return _STRANGERS[next(steps) % len(_STRANGERS)] if next(steps) == 255 else made
    holder, key = parents[-1]
    action = next(steps) % 4
    if action == 0:
        holder[key] = _STRANGERS[next(steps) % len(_STRANGERS)]
    elif action == 1:
        del holder[key]
    elif action == 2 and type(holder) is list:
        holder.insert(next(steps) % (len(holder) + 1), holder[key])
    elif type(spot) is int:
        holder[key] = spot + (next(steps) - 128) * 512
    return made


def _use(tape: Tape) -> None:
    again = tape_from_bytes(tape_bytes(tape))
    if len(again.devices) != len(tape.devices):
        raise AssertionError("a Tape is not read as it was written")
    for device in tape.devices:
        if len(device.events) > _MOST_EVENTS:
            continue
        try:
            how = parse_settings(tape.settings)
            run = replay(device.events.causes(), how, initial=[placed_segment(held) for held in device.initial])
        except InputError as error:
            _check_line(str(error))
            continue
        if run.end_reserved_bytes < run.allocator.active_bytes:
            raise AssertionError("more is lent than held")


def _check_line(text: str) -> None:
    if not text or "\n" in text or len(text) > 1000:
        raise AssertionError(f"not one readable line: {text[:200]!r}")
