"""The closed form beside the trace, over a grid of workloads: live peaks, each moment, each category.

    python benchmarks/judge.py                      # the small grid: shallow models, a minute or two
    python benchmarks/judge.py --grid large         # 60M to 13B, every method: hours on two cores
    python benchmarks/judge.py --only 0:20 --json out.jsonl

One line per workload: signed error of the live peak (closed form against trace), the largest error of any moment, and
the moments that differ with their categories. The last lines give median and worst errors, and the ranges of allocated
over live and reserved over live bytes that the replica of the allocator found.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from estimators.analytic.attention import attention_kernel
from estimators.analytic.estimate import estimate
from estimators.footprint import Footprint
from estimators.workload import METHODS, Workload
from galore_mem.answers.settings import Settings, workloads
from galore_mem.answers.steps import record
from galore_mem.answers.trace import answer_of
from profiles.gpus import SMALL_WORKSPACE_BYTES
from profiles.models import find_model
from profiles.shapes import ModelShape

RESIDENT = ("weights", "buffers", "optimizer_states", "projectors")
SMALL = ModelShape(
    name="small",
    model_type="llama",
    hidden_size=256,
    intermediate_size=704,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    vocab_size=1000,
    max_position_embeddings=2048,
)
SHAPES = (
    SMALL,
    replace(SMALL, name="tied", tie_word_embeddings=True),
    replace(SMALL, name="qwen2", model_type="qwen2", qkv_bias=True),
    replace(SMALL, name="qwen3", model_type="qwen3", qk_norm=True, head_dim=32),
)
RUNS: tuple[dict[str, Any], ...] = (
    {},
    {"batch": 2, "checkpointing": "full"},
    {"precision": "fp32", "attention": "efficient", "padding": True},
    {"precision": "amp-bf16", "batch": 2},
    {"precision": "amp-bf16", "checkpointing": "full"},
    {"attention": "math", "batch": 2},
    {"attention": "eager", "batch": 2},
    {"grad_accumulation": 3},
    {"loss": "chunked", "batch": 2},
    {"keep_outputs": True, "use_cache": True},
)
MODELS = ("llama-60m", "llama-130m", "llama-350m", "qwen2.5-0.5b", "qwen3-0.6b", "llama-1b", "llama-3b", "llama-7b")
MODELS += ("mistral-7b", "llama-13b")


def variants(method: str) -> Iterator[dict[str, Any]]:
    """Updates and implementations of a method."""
    for update in ("whole", "per-layer"):
        yield {"update": update}
        if METHODS[method].parameterisation == "galore":
            yield {"update": update, "implementation": "galore-torch"}


def small_grid() -> Iterator[Workload]:
    """Every method once, and every way to run a step, on shallow models."""
    for method in METHODS:
        for variant in variants(method):
            yield one(SMALL, method, variant)
    for shape in SHAPES:
        for run in RUNS:
            yield one(shape, "sgd", run)


def large_grid() -> Iterator[Workload]:
    """Every method on models from 60M to 13B."""
    for name in MODELS:
        shape = find_model(name).shape
        for number, method in enumerate(METHODS):
            for place, variant in enumerate(variants(method)):
                run = RUNS[(number + place) % len(RUNS)]
                if variant["update"] == "per-layer":
                    run = {key: value for key, value in run.items() if key != "grad_accumulation"}
                yield one(shape, method, variant | run | {"seq": 512})


def one(shape: ModelShape, method: str, words: dict[str, Any]) -> Workload:
    """A workload of the grid."""
    (workload,) = workloads(shape, (method,), Settings(**{"seq": 128, **words}))
    return workload


def differences(analytic: Footprint, traced: Footprint) -> dict[str, dict[str, Any]]:
    """Moments whose categories differ: signed error in percent, and closed form minus trace by category."""
    ours = {moment.label: moment for moment in analytic.moments}
    theirs = {moment.label: moment for moment in traced.moments}
    found: dict[str, dict[str, Any]] = {}
    for label in sorted(ours.keys() | theirs.keys()):
        if label not in ours or label not in theirs:
            found[label] = {"only": "analytic" if label in ours else "traced"}
            continue
        mine, real = ours[label].by_category, theirs[label].by_category
        apart = {key: mine.get(key, 0) - real.get(key, 0) for key in sorted(mine.keys() | real.keys())}
        apart = {key: size for key, size in apart.items() if size}
        if apart:
            error = 100 * (ours[label].live_bytes / theirs[label].live_bytes - 1)
            found[label] = {"error_pct": round(error, 4), "by_category": apart}
    return found


def judge(workload: Workload) -> dict[str, Any]:
    """One row."""
    kernel = attention_kernel(workload, None)
    recording = record(workload, kernel, workspace_bytes=SMALL_WORKSPACE_BYTES)
    traced, analytic = answer_of(workload, kernel, recording, ()).footprint, estimate(workload)
    resident = {key: analytic.resident_bytes[key] - traced.resident_bytes[key] for key in RESIDENT}
    return {
        "workload": workload.to_dict(),
        "peak_error_pct": round(100 * (analytic.peak_live_bytes / traced.peak_live_bytes - 1), 4),
        "resident_apart_bytes": {key: size for key, size in resident.items() if size},
        "moments": differences(analytic, traced),
        "allocated_over_live": round(traced.peak_allocated_bytes / traced.peak_live_bytes, 5),
        "reserved_over_live": round(traced.peak_reserved_bytes / traced.peak_live_bytes, 5),
    }


def title(workload: Workload) -> str:
    """A row's name."""
    method = workload.method
    words = [workload.model.name, method.name, method.update, method.implementation, workload.precision]
    words += [workload.attention, f"{workload.batch.micro_batch_size}x{workload.batch.sequence_length}"]
    words += [f"x{workload.batch.gradient_accumulation_steps}", workload.checkpointing, workload.loss]
    return " ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description="the closed form beside the trace")
    parser.add_argument("--grid", choices=("small", "large"), default="small")
    parser.add_argument("--only", default=":", help="a slice of the grid, such as 10:20")
    parser.add_argument("--json", type=Path, help="append one JSON object per row")
    options = parser.parse_args()
    first, _, last = options.only.partition(":")
    grid = list(small_grid() if options.grid == "small" else large_grid())
    rows = []
    for workload in grid[int(first or 0) : int(last) if last else None]:
        row = judge(workload)
        rows.append(row)
        moments = [entry.get("error_pct", 100.0) for entry in row["moments"].values()]
        print(f"{row['peak_error_pct']:+8.4f} {max(moments, key=abs, default=0.0):+9.4f}  {title(workload)}")
        for label, entry in row["moments"].items():
            print(f"{'':20}{label}: {entry}")
        if row["resident_apart_bytes"]:
            print(f"{'':20}resident: {row['resident_apart_bytes']}")
        sys.stdout.flush()
        if options.json is not None:
            with options.json.open("a") as file:
                file.write(json.dumps(row, sort_keys=True) + "\n")
    errors = [abs(row["peak_error_pct"]) for row in rows]
    print(f"{len(rows)} workloads: live peak median {statistics.median(errors):.4f} %, worst {max(errors):.4f} %")
    for name in ("allocated_over_live", "reserved_over_live"):
        values = [row[name] for row in rows]
        print(f"{name}: {min(values):.4f} to {max(values):.4f}")


if __name__ == "__main__":
    main()
