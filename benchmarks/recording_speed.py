"""How fast recordings of a million events are read: `python benchmarks/recording_speed.py`.

Prints the CPU seconds and the memory that reading takes, for a torch snapshot (each event with a stack of eight frames)
and for the Tape made of it.
"""

import pickle
import resource
import sys
import tempfile
import time
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

from galore_mem.tapes.file import write_tape
from galore_mem.tapes.recording import read_recording

EVENTS = 1_000_000


def snapshot() -> dict[str, object]:
    """A snapshot of torch 2.10's kind: allocations and frees of random sizes, 500 different stacks."""
    rng = Random(0)
    frames = [{"filename": f"/home/me/file{n % 20}.py", "line": n, "name": f"function{n}"} for n in range(200)]
    stacks = [[rng.choice(frames) for _ in range(8)] for _ in range(500)]
    address, time_us = 0x7F0000000000, 1_700_000_000_000_000
    trace: list[dict[str, object]] = []
    live: list[tuple[int, int]] = []
    while len(trace) < EVENTS:
        time_us += rng.randint(1, 50)
        if not live or rng.random() < 0.5:
            address, size, actions = address + 512 * rng.randint(1, 1000), rng.randint(1, 10**6), ("alloc",)
            where = address
            live.append((where, size))
        else:
            where, size = live.pop(rng.randrange(len(live)))
            actions = ("free_requested", "free_completed")
        shared = {"addr": where, "size": size, "stream": 0, "time_us": time_us, "frames": rng.choice(stacks)}
        trace += [{"action": action, **shared, "compile_context": "N/A", "user_metadata": ""} for action in actions]
    return {"segments": [], "device_traces": [trace]}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file, tape_file = Path(folder) / "snapshot.pickle", Path(folder) / "tape.json.gz"
        child = f"import runpy; runpy.run_path({__file__!r})['make']({str(file)!r})"
        import subprocess

        subprocess.run([sys.executable, "-c", child], check=True)  # so that making it does not count as memory here
        for path in (file, tape_file):
            start = time.process_time()
            tape = read_recording(path)
            seconds = time.process_time() - start
            peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
            events = len(tape.devices[0].events)
            print(
                f"{path.name:16} {path.stat().st_size >> 20:>4} MiB  {events:>9,} rows  {seconds:5.2f} s  {peak_mib} M"
            )
            if path is file:
                write_tape(tape_file, tape)


def make(path: str) -> None:
    """Write the snapshot."""
    Path(path).write_bytes(pickle.dumps(snapshot(), protocol=4))


if __name__ == "__main__":
    main()
