"""How long a trace takes beside the imports it cannot do without, and beside a real step on this machine's CPU.

    python benchmarks/trace_speed.py                       # llama-7b, every method, as processes of their own
    python benchmarks/trace_speed.py --model llama-2-70b --methods adamw galore-adamw-8bit
    python benchmarks/trace_speed.py --real llama-350m     # the same step on real CPU tensors, once

Every row is a process of its own; bare imports run in between, and ratios are to their median. Wall seconds depend on
what else the machine does; CPU seconds less so: both are printed, and peak host memory.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from estimators.workload import METHODS

IMPORTS = "import torch, bitsandbytes; from transformers import LlamaForCausalLM"
REAL = """
from galore_mem.answers.names import resolve_model
from galore_mem.answers.settings import settings_from, workloads
from galore_mem.answers.steps import record
words = dict(batch=1, seq=256)
(workload,) = workloads(resolve_model({model!r}).shape, ({method!r},), settings_from(words))
record(workload, "cpu", fake=False)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one process."""

    wall_s: float
    cpu_s: float
    peak_mib: int


def cost_of(words: list[str]) -> Cost:
    """Run Python with these arguments."""
    folder = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": folder, "PYTHONWARNINGS": "ignore"}
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-P", *words], env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(words)}")
    return Cost(
        wall_s=time.perf_counter() - start, cpu_s=usage.ru_utime + usage.ru_stime, peak_mib=usage.ru_maxrss >> 10
    )


def variants(methods: list[str]) -> list[list[str]]:
    """Options of every way to train with these methods."""
    rows = []
    for method in methods:
        for update in ("whole", "per-layer"):
            rows.append(["--method", method, "--update", update])
            if METHODS[method].parameterisation == "galore":
                rows.append([*rows[-1], "--implementation", "galore-torch"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="seconds and memory of a trace")
    parser.add_argument("--model", default="llama-7b")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--real", help="a model whose step also runs on real CPU tensors; needs memory for all of it")
    options = parser.parse_args()
    bare = [cost_of(["-c", IMPORTS])]
    rows: list[tuple[str, Cost]] = []
    if options.real:
        rows.append((f"{options.real} adamw, fake", cost_of(trace_of(options.real, ["--method", "adamw"]))))
        real = REAL.format(model=options.real, method="adamw")
        rows.append((f"{options.real} adamw, real, 2 iterations", cost_of(["-c", real])))
    else:
        for words in variants(options.methods):
            rows.append((" ".join(words), cost_of(trace_of(options.model, words))))
            if len(rows) % 3 == 0:
                bare.append(cost_of(["-c", IMPORTS]))
    bare.append(cost_of(["-c", IMPORTS]))
    wall, cpu = (statistics.median(getattr(cost, key) for cost in bare) for key in ("wall_s", "cpu_s"))
    print(f"bare imports: median of {len(bare)}: {wall:.2f} s wall, {cpu:.2f} s CPU, {bare[0].peak_mib} MiB")
    print(f"{options.real or options.model:60}{'wall s':>8}{'ratio':>7}{'CPU s':>8}{'ratio':>7}{'MiB':>7}")
    for name, cost in rows:
        ratios = (cost.wall_s / wall, cost.cpu_s / cpu)
        print(f"{name:60}{cost.wall_s:8.2f}{ratios[0]:7.2f}{cost.cpu_s:8.2f}{ratios[1]:7.2f}{cost.peak_mib:7}")


def trace_of(model: str, words: list[str]) -> list[str]:
    """Arguments of one trace."""
    return ["-m", "galore_mem", "trace", model, "--gpu", "4090", *words]


if __name__ == "__main__":
    main()
