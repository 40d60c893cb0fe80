"""A trace beside the same first and steady step on real CPU tensors: time, host memory, and the peaks both give.

    python benchmarks/beside_cpu.py                              # llama-1b: 13 GiB of free memory, some minutes
    python benchmarks/beside_cpu.py --model llama-350m

Both go through the same recorder and the same replica; attention keeps what the flash kernel keeps. Each runs as a
process of its own, which gives way to others where memory runs out.
"""

import argparse
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

CHILD = """
import json, resource, sys, time
began, spent = time.perf_counter(), time.process_time()
from galore_mem.answers.names import resolve_model
from galore_mem.answers.settings import settings_from, workloads
from galore_mem.answers.steps import record
from galore_mem.answers.trace import answer_of
from profiles.gpus import SMALL_WORKSPACE_BYTES

model, method, kind = sys.argv[1:]
(workload,) = workloads(resolve_model(model).shape, (method,), settings_from({"optimizer_kernel": "loop"}))
recording = record(workload, "flash", workspace_bytes=SMALL_WORKSPACE_BYTES, fake=kind == "trace")
footprint = answer_of(workload, "flash", recording, ()).footprint
print(json.dumps({
    "wall_s": time.perf_counter() - began,
    "cpu_s": time.process_time() - spent,
    "host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "live": footprint.peak_live_bytes,
    "allocated": footprint.peak_allocated_bytes,
    "reserved": footprint.peak_reserved_bytes,
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="llama-1b")
    parser.add_argument("--method", default="adamw")
    asked = parser.parse_args()
    print(f"{asked.model}, {asked.method}, loop kernel, bf16, 1 x 256 tokens; {os.cpu_count()} cores")
    print(f"{'':<18}{'wall s':>8}{'CPU s':>8}{'host GiB':>10}{'live':>9}{'allocated':>11}{'reserved':>10}")
    for kind, name in (("trace", "fake tensors"), ("real", "real CPU tensors")):
        found = run(asked.model, asked.method, kind)
        host, live, allocated, reserved = (
            found[key] / 2**30 for key in ("host_bytes", "live", "allocated", "reserved")
        )
        print(f"{name:<18}{found['wall_s']:>8.1f}{found['cpu_s']:>8.1f}{host:>10.2f}", end="")
        print(f"{live:>9.3f}{allocated:>11.3f}{reserved:>10.3f}", flush=True)


def run(model: str, method: str, kind: str) -> dict[str, float]:
    """One process."""
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHILD, model, method, kind],
        env=os.environ | {"PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        preexec_fn=_first_to_go,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _first_to_go() -> None:
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


if __name__ == "__main__":
    main()
