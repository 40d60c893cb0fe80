"""A recording as a Tape."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from galore_mem.profiler.recording import PHASES, Recording
from galore_mem.tapes.table import EventTable
from galore_mem.tapes.tape import DeviceTape, Mark, Tape
from galore_mem.witness import EMPTY_CACHE, HOST


def tape_of(
    recording: Recording,
    *,
    source: Literal["traced", "replayed"],
    settings: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> Tape:
    """The recording without what a GPU run keeps on the host, as the history of one device.

    Args:
        recording: what was seen.
        source: fake tensors, or real CPU tensors.
        settings: as in PYTORCH_CUDA_ALLOC_CONF, to be replayed with.
        metadata: workload, environment: plain JSON values.
    """
    table = EventTable()
    marks: list[Mark] = []
    lives = recording.lives
    texts = [[table.intern(text) for text in (life.category, life.module, life.operator)] for life in lives]
    on_device = [life.category != HOST for life in lives]
    for begin, end, window, names in marked_stretches(recording):
        marks += [Mark(row=len(table), kind=kind, name=name) for kind, name in names]
        if window == EMPTY_CACHE:
            table.append("empty_cache", phase=PHASES[window])
        codes = [code for code in recording.events[begin:end] if on_device[abs(code) - 1]]
        numbers = [abs(code) - 1 for code in codes]
        table.extend(
            ["alloc" if code > 0 else "free" for code in codes],
            blocks=[number + 1 for number in numbers],
            sizes=[lives[number].nbytes for number in numbers],
            category=[texts[number][0] for number in numbers],
            module=[texts[number][1] for number in numbers],
            operator=[texts[number][2] for number in numbers],
            phase=[table.intern(PHASES[window])] * len(codes),
        )
    device = DeviceTape(events=table, marks=tuple(marks))
    return Tape(devices=(device,), settings=settings, source=source, metadata=metadata or {})


def marked_stretches(recording: Recording) -> Iterator[tuple[int, int, str, list[tuple[str, str]]]]:
    """(first event, end, window, marks at its beginning as kind and name) from border to border."""
    seen, before = "", ""
    for begin, end, iteration, window in recording.stretches():
        begins = window == before == "between"  # a step ends in `between`, and the next one begins in it
        before = window
        names: list[tuple[str, str]] = []
        if iteration != seen or (begins and iteration):
            seen = iteration
            names.append(("iteration", iteration))
        if iteration and window != EMPTY_CACHE:
            names += [("phase", PHASES[window]), ("moment", window)]
        yield begin, end, window, names
