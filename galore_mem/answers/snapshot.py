"""A Tape as the snapshot that a GPU would have written, addresses and all: from the allocator's replica."""

import os

from estimators.allocator.parse import parse_settings
from estimators.allocator.placed import place
from galore_mem.answers.histories import held_segment, placed_segment
from galore_mem.tapes.memory_viz import Placement, write_snapshot
from galore_mem.tapes.tape import Tape


def write_predicted(path: str | os.PathLike[str], tape: Tape) -> None:
    """Write a pickle that pytorch.org/memory_viz opens, atomically.

    Raises:
        InputError: the Tape's settings do not parse.
        UsageError: the file cannot be written.
    """
    settings = parse_settings(tape.settings)
    placements = []
    for device in tape.devices:
        initial = tuple(map(placed_segment, device.initial))
        events, segments = place(device.events.causes(), settings, initial=initial)
        placements.append(Placement(events=events, segments=tuple(map(held_segment, segments))))
    write_snapshot(path, tape, placements)
