"""A recording as a Tape."""

from collections.abc import Mapping
from typing import Any, Literal

from galore_mem.profiler.recording import HOST, PHASES, Recording
from galore_mem.tapes.table import EventTable
from galore_mem.tapes.tape import DeviceTape, Mark, Tape


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
    seen, before = "", ""
    for begin, end, iteration, window in recording.stretches():
        begins = window == before == "between"  # a step ends in `between`, and the next one begins in it
        before = window
        if iteration != seen or (begins and iteration):
            seen = iteration
            marks.append(Mark(row=len(table), kind="iteration", name=iteration))
        if iteration:
            marks.append(Mark(row=len(table), kind="phase", name=PHASES[window]))
            marks.append(Mark(row=len(table), kind="moment", name=window))
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
