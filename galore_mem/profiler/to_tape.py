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
    borders = iter(recording.borders)
    border = next(borders, None)
    iteration = ""
    for position, code in enumerate(recording.events):
        while border is not None and border[0] <= position:
            if border[1] != iteration:
                iteration = border[1]
                marks.append(Mark(row=len(table), kind="iteration", name=iteration))
            marks.append(Mark(row=len(table), kind="phase", name=PHASES[border[2]]))
            border = next(borders, None)
        number = abs(code) - 1
        life = recording.lives[number]
        if life.category == HOST:
            continue
        table.append(
            "alloc" if code > 0 else "free",
            number + 1,
            life.nbytes,
            category=life.category,
            phase=PHASES[recording.windows[position]],
            module=life.module,
            operator=life.operator,
        )
    device = DeviceTape(events=table, marks=tuple(marks))
    return Tape(devices=(device,), settings=settings, source=source, metadata=metadata or {})
