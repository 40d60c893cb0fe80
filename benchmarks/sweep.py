"""How many estimates a second one process makes.

    python benchmarks/sweep.py

A sweep asks about one model under many batches and methods, as `fit` does; what depends on the model's structure
alone is computed once.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from estimators.analytic.estimate import estimate, reach
from estimators.workload import Batch, Method, Workload
from profiles.gpus import Gpu, find_gpu
from profiles.models import find_model

WANTED = 20_000
"""Estimates a second."""


def workloads() -> list[Workload]:
    """A grid over batch, length, checkpointing and rank: no two alike."""
    base = Workload(model=find_model("llama-7b").shape)
    methods = [Method(name="adamw"), Method(name="adamw-8bit")]
    methods += [
        Method(name="galore-adamw-8bit", rank=rank, update=update)
        for rank in (128, 256, 512, 1024)
        for update in ("whole", "per-layer")
    ]
    return [
        replace(
            base,
            method=method,
            checkpointing=checkpointing,
            batch=Batch(micro_batch_size=batch, sequence_length=length),
        )
        for method in methods
        for checkpointing in ("none", "full")
        for batch in range(1, 17)
        for length in range(128, 2049, 32)
    ]


def rate(grid: list[Workload], gpu: Gpu) -> float:
    start = time.perf_counter()
    for workload in grid:
        reach(workload, gpu)
    return len(grid) / (time.perf_counter() - start)


def main() -> int:
    grid = workloads()
    first = time.perf_counter()
    estimate(grid[0], find_gpu("4090"))
    first = time.perf_counter() - first
    new = rate(grid, find_gpu("4090"))
    known = rate(grid, find_gpu("3090"))
    print(f"first estimate {first * 1e3:.1f} ms")
    print(f"{new:,.0f} estimates a second where a fifth of them meet a new batch, whose ledger is evaluated")
    print(f"{known:,.0f} estimates a second on another card, with every ledger computed ({len(grid):,} each)")
    return 0 if known >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
