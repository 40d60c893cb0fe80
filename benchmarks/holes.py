"""Which tensors leave the holes: a traced run at the moment its reserved memory grows for the last time.

    python -m benchmarks.holes "qwen2.5-0.5b galore-adafactor per-layer galore-mem amp-bf16 auto 1x512 x1 full full"

Takes the title of a workload in the judge's grid (benchmarks/judged.jsonl). Says which request found no hole large
enough, and what was free then: pieces by size, the tensors that lay there last, and the tensors beside them that keep
the segment from being one piece.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.judge import large_grid, title
from estimators.allocator.blocks import Block
from estimators.allocator.device import DeviceAllocator
from estimators.allocator.replay import Event, replay
from estimators.allocator.settings import DEFAULTS
from estimators.analytic.attention import attention_kernel
from estimators.analytic.cards import USUAL
from galore_mem.answers.lengths import events_of
from galore_mem.answers.steps import record
from galore_mem.profiler.recording import Recording
from profiles.gpus import SMALL_WORKSPACE_BYTES

MIB = 2**20
LARGE_BYTES = 20 * MIB
ROWS = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """A free piece of memory."""

    nbytes: int
    segment_bytes: int
    held: str
    """What lay there last."""
    beside: str
    """The largest tensor that still lies in the segment."""


def last_growth(events: list[Event]) -> int:
    """The event at which reserved memory grows for the last time by a large segment."""
    reserved = replay(events).series.reserved
    return max(number for number in range(1, len(reserved)) if reserved[number] - reserved[number - 1] >= LARGE_BYTES)


def holes(events: list[Event], stop: int, names: dict[int, str]) -> Iterator[Hole]:
    """Every free piece before event `stop`."""
    allocator, lain = DeviceAllocator(DEFAULTS), list[tuple[int, int, str]]()
    for action, block, nbytes, _, _ in events[:stop]:
        if action == "free":
            allocator.free(block)
            continue
        lent = allocator.alloc(block, nbytes)
        assert isinstance(lent, Block)
        assert isinstance(block, int)
        lain.append((lent.address, lent.size, names[block]))
    for pool in allocator.pools:
        for piece in pool.in_order():
            segment = list(_segment(piece))
            used = [block for block in segment if block.in_use]
            largest = max(used, key=lambda block: block.size, default=None)
            yield Hole(
                nbytes=piece.size,
                segment_bytes=sum(block.size for block in segment),
                held=next((name for at, size, name in reversed(lain) if _overlap(piece, at, size)), "nothing"),
                beside=names[int(str(largest.ident))] if largest is not None else "nothing",
            )


def _segment(block: Block) -> Iterator[Block]:
    first = block
    while first.prev is not None:
        first = first.prev
    current: Block | None = first
    while current is not None:
        yield current
        current = current.next


def _overlap(piece: Block, address: int, size: int) -> bool:
    return address < piece.address + piece.size and piece.address < address + size


def names_of(recording: Recording) -> dict[int, str]:
    """Tensors by number: category, operator, module with `*` for a layer's number, and when it was made."""
    made: dict[int, str] = {}
    for begin, end, iteration, window in recording.stretches():
        for code in recording.events[begin:end]:
            if code > 0:
                made[code - 1] = f"{iteration} {window}".strip()
    found = {}
    for number, life in enumerate(recording.lives):
        module = re.sub(r"\b\d+\b", "*", life.module)
        found[number] = f"{life.category} {life.operator} {module} ({made.get(number, 'loading')})"
    return found


def main() -> None:
    (workload,) = (workload for workload in large_grid() if title(workload) == sys.argv[1])
    recording = record(workload, attention_kernel(workload, None), workspace_bytes=SMALL_WORKSPACE_BYTES, card=USUAL)
    events, names = list(events_of(recording)), names_of(recording)
    stop = last_growth(events)
    run, request = replay(events), events[stop]
    assert isinstance(request[1], int)
    live, reserved, before = run.series.live, run.series.reserved, stop - 1
    print(sys.argv[1])
    print(f"live peak {run.peak_live_bytes / MIB:,.0f} MiB, reserved {run.peak_reserved_bytes / MIB:,.0f} MiB")
    print(f"last growth, event {stop} of {len(events)}: {request[2] / MIB:,.1f} MiB for {names[request[1]]}")
    print(f"then live {live[before] / MIB:,.0f} of {reserved[before] / MIB:,.0f} MiB reserved; free pieces:")
    counted = Counter(holes(events, stop, names))
    print(f"{'MiB':>9} {'count':>5} {'of':>7}  held last by; beside")
    for hole, count in sorted(counted.items(), key=lambda item: -item[0].nbytes * item[1])[:ROWS]:
        size = f"{hole.nbytes / MIB:>9,.1f} {count:>5} {hole.segment_bytes / MIB:>7,.0f}"
        print(f"{size}  {hole.held}; {hole.beside}")


if __name__ == "__main__":
    main()
