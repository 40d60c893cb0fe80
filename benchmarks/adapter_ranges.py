"""How much the allocator holds beyond the live tensors of LoRA and QLoRA: profiles/adapter_ranges.jsonl.

    python benchmarks/adapter_ranges.py      # holds each model's runs to the ranges of the others, and writes the file

Histories are written from the closed form and replayed: docs/qlora.md lays 24 of QLoRA's beside traced ones, and
docs/accuracy.md those of LoRA, whose traced figures count here, too. Beside frozen weights less comes and goes in a
step than in the runs that other ranges are made of, so that a share of it says less: adapters have their own.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from estimators.allocator.replay import replay
from estimators.analytic.bounds import margins_of
from estimators.analytic.estimate import outliner_of
from estimators.analytic.history import history_of
from estimators.workload import Workload
from galore_mem.answers.settings import Settings, workloads
from profiles.models import find_model
from profiles.ranges import SEGMENT_BYTES, Range, choose, class_of

INTO = Path(__file__).parents[1] / "profiles" / "adapter_ranges.jsonl"
MODELS = (
    "llama-60m",
    "llama-350m",
    "llama-1b",
    "llama-7b",
    "llama-2-13b",
    "codellama-34b",
    "llama-3.2-1b",
    "llama-3-8b",
    "mistral-7b-v0.1",
    "mistral-nemo-12b",
    "qwen2.5-0.5b",
    "qwen2.5-1.5b",
    "qwen2.5-7b",
    "qwen3-0.6b",
    "qwen3-4b",
    "qwen3-8b",
)
KINDS: dict[str, tuple[dict[str, Any], ...]] = {
    "qlora": (
        {},
        {"autocast": True, "bnb_4bit_use_double_quant": True},
        {"adapter_dtype": "bf16"},
        {"precision": "amp-bf16", "bnb_4bit_use_double_quant": True},
    ),
    "lora": ({}, {"autocast": True}, {"adapter_dtype": "bf16"}, {"precision": "amp-bf16"}),
}
"""Each method in four kinds of scripts."""
CLASS_OF = {"qlora": "quantised", "lora": "adapters"}
BATCHES = ((256, 1), (512, 1), (1024, 2), (2048, 1), (2048, 4), (4096, 2), (8192, 1))
"""Tokens in a sequence, and sequences."""
ATTENTIONS = ("auto", "auto", "eager", "math")
LONGEST_SCORES = 1024
"""Tokens up to which attention that writes its scores down is among the kinds."""
JUDGED = Path(__file__).with_name("judged.jsonl")
SOURCE = "benchmarks/adapter_ranges.py: histories written from the closed form, through the replica of the allocator"
Row = dict[str, Any]


def grid(method: str) -> Iterator[Workload]:
    """Every model in every batch, with and without checkpointing, in two kinds of scripts, and one of them per layer.

    The kinds go round, and so do attention and the loss.
    """
    kinds = KINDS[method]
    cells = product(MODELS, BATCHES, ("full", "none"))
    for turn, (name, (seq, batch), checkpointing) in enumerate(cells, start=1):
        for step, update in ((0, "whole"), (1, "whole"), (0, "per-layer")):
            words = kinds[(turn + turn // 2 + step) % len(kinds)] | {"loss": ("full", "full", "chunked")[turn % 3]}
            if seq <= LONGEST_SCORES:
                words |= {"attention": ATTENTIONS[(turn // 2 + turn // 7 + step) % len(ATTENTIONS)]}
            words |= {"seq": seq, "batch": batch, "checkpointing": checkpointing, "update": update}
            (workload,) = workloads(find_model(name).shape, (method,), Settings(**words))
            yield workload


def row_of(workload: Workload) -> Row:
    """One run's figures."""
    outliner, run = outliner_of(workload, None), replay(history_of(workload))
    live = max(outline.total_bytes for outline in outliner.outlines())
    central = live + margins_of(workload, None).segments_bytes
    return {
        "model": workload.model.name,
        "update": workload.method.update,
        "kind": CLASS_OF[workload.method.name],
        "live": live,
        "transient": max(live - outliner.lasting_bytes, 1),
        "beyond": run.peak_reserved_bytes - central - SEGMENT_BYTES,
        "allocated": run.peak_allocated_bytes / live - 1,
        "reserved": run.peak_reserved_bytes,
    }


def traced_rows() -> list[Row]:
    """The traced runs of LoRA that docs/accuracy.md shows."""
    rows = [json.loads(line) for line in JUDGED.read_text(encoding="utf-8").splitlines() if " lora " in line]
    return [
        {
            "model": row["title"].split()[0],
            "update": row["title"].split()[2],
            "kind": "adapters",
            "live": row["analytic_live_bytes"],
            "transient": max(row["analytic_live_bytes"] - row["lasting_bytes"], 1),
            "beyond": row["traced_reserved_bytes"] - row["central_reserved_bytes"] - SEGMENT_BYTES,
            "allocated": row["traced_allocated_bytes"] / row["analytic_live_bytes"] - 1,
            "reserved": row["traced_reserved_bytes"],
        }
        for row in rows
    ]


def ranges_of(rows: list[Row]) -> list[Range]:
    """The largest shares by method, update and class of live peaks."""
    classes: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        classes.setdefault((row["kind"], row["update"], class_of(row["live"])), []).append(row)
    return [
        Range(
            update=update,  # type: ignore[arg-type]
            implementation="galore-mem",
            optimizer=kind,  # type: ignore[arg-type]
            live_class=number,
            rows=len(found),
            transient_pct=max(0, *(ceil(100 * row["beyond"] / row["transient"]) for row in found)),
            live_pct=max(0, *(ceil(100 * row["beyond"] / row["live"]) for row in found)),
            allocated_pct=max(0.0, ceil(1000 * max(row["allocated"] for row in found)) / 10),
            source=SOURCE,
        )
        for (kind, update, number), found in sorted(classes.items())
    ]


def excess_pct(row: Row, ranges: list[Range]) -> float:
    """By how much of its reserved memory a run exceeds its range; negative where it is inside."""
    found = choose(ranges, row["update"], "galore-mem", row["kind"], class_of(row["live"]))
    bound = found.beyond_bytes(row["live"], row["transient"])
    return 100 * float(row["beyond"] + SEGMENT_BYTES - bound) / float(row["reserved"])


def hold(method: str) -> list[Row]:
    """A method's rows, each model's held to ranges made of the others."""
    rows, outside = [row_of(workload) for workload in grid(method)], 0
    for name in MODELS:
        own = [row for row in rows if row["model"] == name]
        without = ranges_of([row for row in rows if row["model"] != name])
        misses = [miss for row in own if (miss := excess_pct(row, without)) > 0]
        outside += len(misses)
        most = max(misses, default=0)
        print(f"{method:6}{name:20}{len(own):4} runs, {len(misses)} beyond the others' range, {most:.2f} % at most")
    print(f"{method}: {len(rows) - outside} of {len(rows)} inside ranges made without their model", flush=True)
    return rows


def main() -> None:
    found = ranges_of([row for method in KINDS for row in hold(method)] + traced_rows())
    INTO.write_text("".join(json.dumps(asdict(row)) + "\n" for row in found), encoding="utf-8")


if __name__ == "__main__":
    main()
