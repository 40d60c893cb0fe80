"""How long a replay takes: CPU seconds to write a run's history and to replay it, best of several.

    python benchmarks/replay_speed.py [ROUNDS] [OTHER_TREE]

With the root of another checkout, each round asks both in turn, in processes of their own: a shared machine's noise
then meets both alike. A first history of a layout is written into a script, which later ones of other batches share.
"""

import os
import subprocess
import sys
from pathlib import Path
from time import process_time

ROOT = Path(__file__).resolve().parents[1]
RUNS = (
    ("llama-7b", "galore-adamw-8bit", 1024, 256, 30),
    ("llama-7b", "adamw-8bit", None, 256, 6),
    ("llama-2-70b", "galore-adamw-8bit", 1024, 256, 40),
    ("qwen2.5-72b", "galore-adamw-8bit", 4096, 256, 2),
    ("gemma-3-27b", "galore-adamw", 1024, 2048, 16),
    ("gpt-oss-20b", "adafactor", None, 256, 128),
)
"""Model, method, rank, tokens of a sequence and sequences; per layer, with checkpointing."""


def measure() -> None:
    """Print, for each run: events, seconds to write it first, again in another batch, and to replay it."""
    from estimators.allocator.settings import DEFAULTS
    from estimators.analytic.history import written_history
    from galore_mem.answers.exact import _peaks
    from galore_mem.answers.settings import Settings, workloads
    from profiles.models import find_model

    for model, method, rank, tokens, batch in RUNS:
        spent = []
        for size in (batch, batch + 1):
            ranks = {} if rank is None else {"rank": rank}
            words = {"update": "per-layer", "checkpointing": "full", "seq": tokens, "batch": size, **ranks}
            (workload,) = workloads(find_model(model).shape, (method,), Settings(**words))
            start = process_time()
            history = written_history(workload)
            spent.append(process_time() - start)
        start = process_time()
        _peaks(history, DEFAULTS)
        print(len(history.codes), *spent, process_time() - start)


def main() -> int:
    if sys.argv[1:] == ["--measure"]:
        sys.path.insert(0, os.environ["REPLAY_TREE"])
        measure()
        return 0
    rounds, trees = int(sys.argv[1]) if sys.argv[1:] else 5, [ROOT, *map(Path, sys.argv[2:3])]
    best: dict[tuple[Path, int], list[float]] = {}
    for _ in range(rounds):
        for tree in trees:
            environment = {**os.environ, "REPLAY_TREE": str(tree)}
            command = [sys.executable, "-P", __file__, "--measure"]
            lines = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            for number, line in enumerate(lines.splitlines()):
                found = [float(word) for word in line.split()]
                best[tree, number] = [*map(min, best.get((tree, number), found), found)]
    print("run                            events  written first    again  replayed")
    for number, (model, method, *_) in enumerate(RUNS):
        for tree in trees:
            events, first, again, replayed = best[tree, number]
            name = f"{model} {method}" if tree == ROOT else "  in the other tree"
            print(f"{name:30} {events:7.0f} {first:14.4f} {again:8.4f} {replayed:9.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
