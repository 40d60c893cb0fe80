"""The closed form beside the trace, over a grid of workloads: live peaks, each moment, each category.

    python benchmarks/judge.py --into rows.jsonl                 # 60M to 13B, every method; only what is missing
    python benchmarks/judge.py --into rows.jsonl --order 1       # another process beside it, in another order
    python benchmarks/judge.py --grid small --into small.jsonl   # shallow models, a minute or two
    python benchmarks/judge.py --into rows.jsonl --again         # formulas have changed: their half of every row anew
    python benchmarks/judge_report.py rows.jsonl                 # docs/accuracy.md

One JSON object per workload is appended to the file: both answers in bytes, and where they differ by category. What the
replica of the allocator makes of the traced history, allocated and reserved, is in it too. A file that is not there yet
begins with the rows that are kept (benchmarks/judged_rows.jsonl.gz); delete those to trace everything anew. A change of
formulas needs no trace: each row keeps what was traced, category by category.
"""

import argparse
import gzip
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from estimators.allocator.replay import replay
from estimators.analytic.attention import attention_kernel
from estimators.analytic.cards import USUAL
from estimators.analytic.estimate import estimate, outliner_of
from estimators.checks import check
from estimators.workload import METHODS, Workload
from galore_mem.answers.lengths import events_of
from galore_mem.answers.recorded import resident_bytes
from galore_mem.answers.settings import Settings, workloads
from galore_mem.answers.steps import record
from galore_mem.profiler.recording import peaks_of
from profiles.errors import InputError
from profiles.gpus import SMALL_WORKSPACE_BYTES
from profiles.models import find_model
from profiles.shapes import ModelShape

Row = dict[str, Any]
KEPT_ROWS = Path(__file__).with_name("judged_rows.jsonl.gz")
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
LENGTHS = (512, 256, 1024)
MODELS: tuple[str, ...] = ("llama-60m", "llama-130m", "llama-350m", "qwen2.5-0.5b", "qwen3-0.6b", "llama-1b")
MODELS += ("llama-3b", "llama-7b", "mistral-7b", "llama-13b")

JUDGED: tuple[str, ...] = ("adamw", "adamw-8bit", "adafactor", "sgd", "sgd-momentum", "galore-adamw")
JUDGED += ("galore-adamw-8bit", "galore-adafactor", "lora", "relora", "low-rank")
"""Methods of the grid; their order decides which run each model gets, so that new ones go into rows of their own."""

FIT_LIKE: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("llama-60m", "adamw", {"batch": 24, "seq": 256, "grad_accumulation": 2}),
    ("llama-350m", "adamw", {"batch": 11, "seq": 512}),
    ("qwen3-0.6b", "adamw-8bit", {"batch": 3, "seq": 1024}),
    ("llama-1b", "adamw", {"batch": 5, "seq": 512, "checkpointing": "full"}),
    ("llama-7b", "galore-adamw-8bit", {"batch": 19, "seq": 256, "update": "per-layer", "loss": "chunked"}),
    ("mistral-7b", "adafactor", {"batch": 3, "seq": 1024, "update": "per-layer"}),
    ("llama-3.2-1b", "adamw-8bit", {"batch": 7, "seq": 1024, "update": "per-layer"}),
    ("llama-3.2-3b", "adamw-8bit", {"batch": 3, "seq": 1024, "update": "per-layer"}),
    ("qwen3-1.7b", "adamw-8bit", {"batch": 5, "seq": 1024, "update": "per-layer"}),
    ("qwen3-4b", "adamw-8bit", {"batch": 5, "seq": 512, "update": "per-layer"}),
    ("llama-3-8b", "galore-adamw-8bit", {"batch": 5, "seq": 1024, "update": "per-layer", "loss": "chunked"}),
    ("qwen3-8b", "lora", {"batch": 3, "seq": 1024, "loss": "chunked"}),
    ("qwen3-0.6b", "adamw-8bit", {"batch": 40, "seq": 1024, "loss": "chunked"}),
    ("llama-350m", "galore-adamw", {"batch": 37, "seq": 900, "update": "per-layer", "loss": "chunked"}),
    ("llama-60m", "adamw", {"batch": 128, "seq": 1024, "loss": "chunked"}),
)
"""What `fit` recommends looks like this: checkpointing (but for the first three), odd batches, long sequences."""
NOT_CHECKPOINTED = 3


def variants(method: str) -> Iterator[dict[str, Any]]:
    """Updates and implementations of a method."""
    for update in ("whole", "per-layer"):
        yield {"update": update}
        if METHODS[method].parameterisation == "galore":
            yield {"update": update, "implementation": "galore-torch"}


def small_grid() -> Iterator[Workload]:
    """Every method once, and every way to run a step, on shallow models."""
    for method in JUDGED:
        for variant in variants(method):
            yield one(SMALL, method, variant)
    for shape in SHAPES:
        for run in RUNS:
            yield one(shape, "sgd", run)


def large_grid() -> Iterator[Workload]:
    """Every method on models from 60M to 13B, each model under other runs of each method."""
    for place, name in enumerate(MODELS):
        shape = find_model(name).shape
        number = place
        for method in JUDGED:
            for variant in variants(method):
                number += 1
                run = RUNS[number % len(RUNS)]
                runs = [variant | run | {"seq": LENGTHS[number % len(LENGTHS)]}]
                if variant["update"] == "per-layer" and "grad_accumulation" in run:
                    runs.append({key: value for key, value in runs[0].items() if key != "grad_accumulation"})
                yield from filter(is_possible, (one(shape, method, words) for words in runs))
    for place, (name, method, words) in enumerate(FIT_LIKE):
        usual = {} if place < NOT_CHECKPOINTED else {"checkpointing": "full"}
        yield one(find_model(name).shape, method, usual | words)


def models_judged() -> tuple[str, ...]:
    """Names of the large grid's models, in its order."""
    return tuple(dict.fromkeys(find_model(name).name for name in (*MODELS, *(row[0] for row in FIT_LIKE))))


def one(shape: ModelShape, method: str, words: dict[str, Any]) -> Workload:
    """A workload of the grid."""
    (workload,) = workloads(shape, (method,), Settings(**{"seq": 128, **words}))
    return workload


def is_possible(workload: Workload) -> bool:
    """Whether the options go together."""
    try:
        check(workload, None)
    except InputError:
        return False
    return True


def judge(workload: Workload) -> Row:
    """One row."""
    start = time.process_time()
    kernel = attention_kernel(workload, None)
    recording = record(workload, kernel, workspace_bytes=SMALL_WORKSPACE_BYTES, card=USUAL)
    peaks = [peak for peak in peaks_of(recording) if peak.window != "between"]
    run = replay(events_of(recording))
    resident = resident_bytes(recording)
    traced = {
        "traced_live_bytes": max(peak.live_bytes for peak in peaks),
        "traced_allocated_bytes": run.peak_allocated_bytes,
        "traced_reserved_bytes": run.peak_reserved_bytes,
        "events": run.events,
        "traced_resident_bytes": {key: resident[key] for key in RESIDENT},
        "traced_moments": {f"{peak.iteration} {peak.window}": peak.by_category for peak in peaks},
        "cpu_seconds": round(time.process_time() - start, 2),
    }
    return beside(workload, traced)


def beside(workload: Workload, traced: Row) -> Row:
    """The closed form's half of a row, worked out now and laid beside the traced half: what begins with `traced`."""
    analytic = estimate(workload)
    ours = {moment.label: dict(moment.by_category) for moment in analytic.moments}
    theirs, resident = traced["traced_moments"], traced["traced_resident_bytes"]
    moments = {}
    for label in sorted(ours.keys() | theirs.keys()):
        mine, real = ours.get(label, {}), theirs.get(label, {})
        apart = {key: mine.get(key, 0) - real.get(key, 0) for key in sorted(mine.keys() | real.keys())}
        moments[label] = {
            "analytic_bytes": sum(mine.values()),
            "traced_bytes": sum(real.values()),
            "apart_bytes": {key: size for key, size in apart.items() if size},
        }
    return {
        **traced,
        "title": title(workload),
        "workload": workload.to_dict(),
        "analytic_live_bytes": analytic.peak_live_bytes,
        "lasting_bytes": outliner_of(workload, None).lasting_bytes,
        "central_reserved_bytes": analytic.peak_reserved_bytes,
        "resident_apart_bytes": {key: analytic.resident_bytes[key] - resident[key] for key in RESIDENT},
        "moments": moments,
    }


def again(path: Path, grid: Iterable[Workload]) -> None:
    """Work the closed form's half of every row out anew; rows that the grid does not have any more go."""
    rows = {row["title"]: row for row in read_rows(path)}
    found = [beside(workload, rows[title(workload)]) for workload in grid if title(workload) in rows]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in found), encoding="utf-8")
    partial.replace(path)
    print(f"{len(found)} of {len(rows)} rows, their closed form worked out anew")


def title(workload: Workload) -> str:
    """A row's name."""
    method, batch = workload.method, workload.batch
    words = [workload.model.name, method.name, method.update, method.implementation, workload.precision]
    words += [workload.attention, f"{batch.micro_batch_size}x{batch.sequence_length}"]
    words += [f"x{batch.gradient_accumulation_steps}", workload.checkpointing, workload.loss]
    words += ["padding"] * workload.padding + ["outputs"] * workload.keep_outputs
    return " ".join(words)


def read_rows(path: Path) -> list[Row]:
    """Rows that are there; a last line that was cut off is not."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def begin(path: Path) -> None:
    """Put the kept rows into a new file."""
    if not path.exists() and KEPT_ROWS.exists():
        path.write_bytes(gzip.decompress(KEPT_ROWS.read_bytes()))


def main() -> None:
    parser = argparse.ArgumentParser(description="the closed form beside the trace")
    parser.add_argument("--grid", choices=("small", "large"), default="large")
    parser.add_argument("--into", type=Path, required=True, help="JSONL that rows are appended to")
    parser.add_argument("--order", type=int, default=0, help="of the workloads; whatever part is done is a fair sample")
    parser.add_argument("--again", action="store_true", help="trace nothing; work the closed form's half out anew")
    options = parser.parse_args()
    if options.grid == "large":
        begin(options.into)
    grid = list(small_grid() if options.grid == "small" else large_grid())
    if options.again:
        again(options.into, grid)
        return
    Random(options.order).shuffle(grid)
    for number, workload in enumerate(grid):
        if title(workload) in {row["title"] for row in read_rows(options.into)}:
            continue
        row = judge(workload)
        with options.into.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, sort_keys=True) + "\n")
        error = 100 * (row["analytic_live_bytes"] / row["traced_live_bytes"] - 1)
        over = 100 * (row["traced_reserved_bytes"] / row["traced_live_bytes"] - 1)
        print(f"{number:4} {error:+8.4f} % live, reserved {over:+6.2f} %  {row['title']}", flush=True)


if __name__ == "__main__":
    main()
