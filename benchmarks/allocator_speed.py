"""How fast the allocator replica replays: `python benchmarks/allocator_speed.py`.

Prints events a second of CPU time (best of several runs, every series recorded, starting layout included) for each
recorded history under native and expandable segments, and for made-up programs with few and with many live blocks.
`--check` exits with 1 when a floor is missed: 150,000 native and 100,000 expandable on the slowest recorded history,
and 50,000 live blocks at most twice as slow as 500.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

from estimators.allocator.layout import PlacedSegment
from estimators.allocator.replay import Event, replay
from estimators.allocator.settings import AllocatorSettings
from galore_mem.answers.histories import placed_segment
from galore_mem.tapes.recording import read_recording

RECORDED = Path(__file__).parents[1] / "tests" / "fixtures" / "recorded"
MODES = {
    "native": AllocatorSettings(),
    "expandable": AllocatorSettings(expandable_segments=True),
}
FLOORS = {"native": 150_000, "expandable": 100_000}
RUNS = 5


def speed(events: Sequence[Event], how: AllocatorSettings, initial: Sequence[PlacedSegment] = ()) -> float:
    """Events a second of CPU time, best of `RUNS`."""
    best = float("inf")
    for _ in range(RUNS):
        start = time.process_time()
        replay(events, how, initial=initial)
        best = min(best, time.process_time() - start)
    return len(events) / best


def steady(live: int, events: int = 60_000) -> list[Event]:
    """A program that keeps about `live` blocks of many sizes alive."""
    rng = Random(live)
    sizes = [
        rng.choice([rng.randint(1, 1 << 14), rng.randint(1, 1 << 20), rng.randint(1 << 20, 1 << 23)])
        for _ in range(999)
    ]
    program: list[Event] = [("alloc", name, rng.choice(sizes), 0, 0) for name in range(live)]
    names = list(range(live))
    for name in range(live, live + events // 2):
        spot = rng.randrange(live)
        program += [("free", names[spot], 0, 0, 0), ("alloc", name, rng.choice(sizes), 0, 0)]
        names[spot] = name
    return program


def steady_speed(live: int, how: AllocatorSettings) -> float:
    """Events a second once `live` blocks are held: the clock starts when they have been built up."""
    program = steady(live)
    starts: list[float] = []

    def feed() -> Iterator[Event]:
        yield from program[:live]
        starts.append(time.process_time())
        yield from program[live:]

    best = float("inf")
    for _ in range(RUNS):
        replay(feed(), how)
        best = min(best, time.process_time() - starts[-1])
    return (len(program) - live) / best


def main() -> int:
    """Print the table; with `--check`, hold it to the floors."""
    failures = []
    print(f"{'history':24} {'events':>8} {'native':>10} {'expandable':>11}  events/s of CPU time")
    for file in sorted(RECORDED.glob("*.tape.json.gz")):
        (device,) = read_recording(file).devices
        events: list[Event] = list(device.events.causes())
        initial = [placed_segment(segment) for segment in device.initial]
        speeds = {mode: speed(events, how, initial) for mode, how in MODES.items()}
        name = file.name.split(".")[0]
        print(f"{name:24} {len(events):>8,} {speeds['native']:>10,.0f} {speeds['expandable']:>11,.0f}")
        failures += [f"{name} {mode}" for mode, floor in FLOORS.items() if speeds[mode] < floor]
    few, many = ({mode: steady_speed(live, how) for mode, how in MODES.items()} for live in (500, 50_000))
    for label, speeds in (("500 live blocks", few), ("50,000 live blocks", many)):
        print(f"{label:24} {'60,000':>8} {speeds['native']:>10,.0f} {speeds['expandable']:>11,.0f}")
    factors = {mode: few[mode] / many[mode] for mode in MODES}
    print(f"{'slower by':24} {'':>8} {factors['native']:>9.2f}x {factors['expandable']:>10.2f}x")
    failures += [f"{mode} with many blocks" for mode in MODES if factors[mode] > 2]
    if failures and "--check" in sys.argv[1:]:
        print("too slow:", ", ".join(failures), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
