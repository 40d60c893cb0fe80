"""Answers and run times of galore-mem and of the tools that people use today, for the same workloads, in one run.

    python -m benchmarks.side_by_side [--write docs/side-by-side.json] [CASE ...]

Peers are never part of this project. Make them available, then point at them:

    pip install --no-deps --target peers torch-kitsune llm-analysis fire termcolor      PEERS=peers
    EleutherAI/cookbook's calc/calc_transformer_mem.py                                  PEER_COOKBOOK=its path
    DeepSpeed's deepspeed/runtime/zero/stage_1_and_2.py                                 PEER_DEEPSPEED=its path

The truth of a case is a real step on CPU tensors, its recorded history through the replica of the allocator
(`galore-mem profile --device cpu`: max_memory_allocated), or a published measurement.
"""

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from estimators.workload import Batch, Method, Workload
from galore_mem.answers.command_line import command_line
from profiles.models import find_model

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20
GIB = 2**30
PATIENCE_S = 1800
PEERS = ("mem-tracker", "kitsune", "accelerate", "deepspeed", "cookbook", "llm-analysis")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One workload and how its truth is known."""

    workload: Workload
    figure: str = "peak_allocated_bytes"
    """What our answers are compared with the truth by."""
    published_bytes: tuple[int, int] | None = None
    """Least and most of a published reading; None where a real CPU step decides."""
    source: str = "a real step on CPU tensors, through the replica of the allocator"


def _case(model: str, method: Method, batch: tuple[int, int], **words: Any) -> Workload:  # noqa: ANN401
    size = Batch(micro_batch_size=batch[0], sequence_length=batch[1])
    return Workload(model=find_model(model).shape, method=method, batch=size, **words)


GALORE = Method(name="galore-adamw-8bit", rank=128, update="per-layer")
CASES: dict[str, Case] = {
    "llama-60m adamw bf16 4x256": Case(workload=_case("llama-60m", Method(), (4, 256))),
    "llama-60m adamw fp32 8x256": Case(workload=_case("llama-60m", Method(), (8, 256), precision="fp32")),
    "llama-60m adamw bf16 8x512 checkpointing": Case(
        workload=_case("llama-60m", Method(), (8, 512), checkpointing="full")
    ),
    "llama-130m adamw bf16 4x256": Case(workload=_case("llama-130m", Method(), (4, 256))),
    "qwen3-0.6b adamw bf16 1x256": Case(workload=_case("qwen3-0.6b", Method(), (1, 256))),
    "llama-60m 8-bit galore per-layer 4x256": Case(workload=_case("llama-60m", GALORE, (4, 256))),
    "llama-1b adamw fp32 5x256": Case(
        workload=_case("llama-1b", Method(), (5, 256), precision="fp32"),
        figure="peak_live_bytes",
        published_bytes=(round(25557.25 * MIB), round(25557.35 * MIB)),
        source="torchao's GaLore memory profiler: 25557.3 MiB",
    ),
    "llama-7b 8-bit galore per-layer 1x256": Case(
        workload=_case(
            "llama-7b",
            Method(name="galore-adamw-8bit", rank=1024, update="per-layer", implementation="galore-torch"),
            (1, 256),
        ),
        figure="process_bytes",
        published_bytes=(22 * 10**9, round(22.8 * 10**9)),
        source="jiaweizzhao/GaLore: 22.0 G in the paper, 22.72 G in its script",
    ),
}


def asked(words: list[str]) -> tuple[dict[str, Any] | None, float]:
    """JSON on stdout of one process, and the CPU seconds it took."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(
            words, env=environment, capture_output=True, text=True, check=False, cwd=ROOT, timeout=PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer in {PATIENCE_S // 60} minutes"}, float(PATIENCE_S)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    taken = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    try:
        return json.loads(done.stdout), taken
    except ValueError:
        print(done.stderr[-500:], file=sys.stderr)
        return None, taken


def ours(command: str, case: Case) -> tuple[dict[str, Any], float]:
    """The footprint that one of our commands gives."""
    import shlex

    workload = case.workload
    line = command_line(command, workload.model.name, workload, ["a100-80gb"] if command != "profile" else [])
    extra = ["--device", "cpu", "--steps", "2"] if command == "profile" else []
    words = [sys.executable, "-P", "-m", *shlex.split(line.replace("galore-mem", "galore_mem", 1)), *extra, "--json"]
    found, taken = asked(words)
    if found is None:
        return {}, taken
    footprint = found["plans"][0]["footprint"] if command == "plan" else found["footprint"]
    return footprint, taken


def run(name: str, case: Case) -> dict[str, Any]:
    """Every answer to one case."""
    row: dict[str, Any] = {"case": name, "figure": case.figure, "source": case.source, "answers": {}}
    for command in ("plan", "trace"):
        footprint, taken = ours(command, case)
        row["answers"][f"galore-mem {command}"] = {"bytes": footprint.get(case.figure), "seconds": round(taken, 2)}
    for tool in PEERS:
        found, taken = asked([sys.executable, "-P", str(ROOT / "benchmarks" / "peers.py"), tool, name])
        row["answers"][tool] = (found or {"failed": "no answer"}) | {"seconds": round(taken, 2)}
    if case.published_bytes is None:
        footprint, taken = ours("profile", case)
        row["truth"] = [footprint.get(case.figure)] * 2
        row["truth_seconds"] = round(taken, 2)
    else:
        row["truth"] = list(case.published_bytes)
    return row


def error(answer: dict[str, Any], truth: list[int]) -> str:
    """Signed error against the truth; within a published range it is none."""
    nbytes = answer.get("bytes")
    if nbytes is None:
        return next((f"cannot: {answer[key]}" for key in ("unable", "missing", "failed") if key in answer), "-")
    low, high = truth
    near = min(max(nbytes, low), high)
    return f"{(nbytes - near) / near:+.1%}"


def table(rows: list[dict[str, Any]]) -> str:
    """The answers as a Markdown table: error, and CPU time of the whole process."""
    tools = list(rows[0]["answers"])
    lines = ["| workload | truth | " + " | ".join(tools) + " |", "|---" * (len(tools) + 2) + "|"]
    for row in rows:
        low, high = row["truth"]
        truth = f"{low / GIB:.2f}" if high / GIB - low / GIB < 0.01 else f"{low / GIB:.2f}-{high / GIB:.2f}"
        cells = []
        for tool in tools:
            answer = row["answers"][tool]
            text = error(answer, row["truth"])
            cells.append(text if text.startswith("cannot") else f"{text}, {answer['seconds']:.1f} s")
        seconds = f" ({row['truth_seconds']:.0f} s)" if "truth_seconds" in row else ""
        lines.append(f"| {row['case']} | {truth} GiB{seconds} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    words = sys.argv[1:]
    path = None
    if words[:1] == ["--write"]:
        path, words = Path(words[1]), words[2:]
    rows = []
    for name in words or CASES:
        rows.append(run(name, CASES[name]))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    print(table(rows))
    if path is not None:
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
