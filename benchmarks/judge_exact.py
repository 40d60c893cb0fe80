"""What `plan --exact` says of the judge's workloads, beside what was traced: for the page and profiles/exact.jsonl."""

import json
import time
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any, Literal

from benchmarks.judge import large_grid, read_rows, title
from benchmarks.pages import paragraph, table
from estimators.allocator.replay import replay
from estimators.analytic.history import history_of
from profiles.models import find_model
from profiles.ranges import Exactness

Row = dict[str, Any]


def add_exact(rows: list[Row], path: Path) -> None:
    """Put what a history written from the closed form reserves into each row; known ones are read from a file."""
    known = {row["title"]: row for row in read_rows(path)}
    grid = {title(workload): workload for workload in large_grid()}
    for row in rows:
        found = known.get(row["title"])
        if found is None:
            start = time.process_time()
            run = replay(history_of(grid[row["title"]]))
            seconds = round(time.process_time() - start, 3)
            found = {"title": row["title"], "reserved_bytes": run.peak_reserved_bytes, "cpu_seconds": seconds}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
        row["exact_reserved_bytes"], row["exact_seconds"] = found["reserved_bytes"], found["cpu_seconds"]


def exact_error_pct(row: Row) -> float:
    """Reserved memory of a history written from the closed form against the traced one's, signed."""
    return 100 * (row["exact_reserved_bytes"] / row["traced_reserved_bytes"] - 1)


def by_kernel(rows: list[Row]) -> dict[Literal["math", "other"], list[Row]]:
    """Rows under attention by separate products, and all others."""
    found: dict[Literal["math", "other"], list[Row]] = {"other": [], "math": []}
    for row in rows:
        found["math" if row["workload"]["attention"] == "math" else "other"].append(row)
    return found


def exactness_of(attention: Literal["math", "other"], rows: list[Row]) -> Exactness:
    """How near those histories come, outwards to hundredths."""
    errors = [*map(exact_error_pct, rows)]
    return Exactness(
        attention=attention,
        rows=len(rows),
        median_pct=round(median(map(abs, errors)), 4),
        shortfall_pct=max(0.0, ceil(-100 * min(errors)) / 100),
        excess_pct=max(0.0, ceil(100 * max(errors)) / 100),
        families=tuple(sorted({find_model(row["workload"]["model"]).shape.model_type for row in rows})),
        methods=tuple(sorted({row["workload"]["method"]["name"] for row in rows})),
        chunked_tokens=max((tokens_of(row) for row in rows if row["workload"]["loss"] == "chunked"), default=0),
        source="benchmarks/judge.py: traced histories, and histories written from the closed form, through one replica",
    )


def tokens_of(row: Row) -> int:
    """Of a micro-batch."""
    batch = row["workload"]["batch"]
    return int(batch["micro_batch_size"] * batch["sequence_length"])


def exact_lines(rows: list[Row]) -> list[str]:
    """Of `plan --exact`."""
    seconds = sorted(row["exact_seconds"] for row in rows)
    apart = [abs(row["exact_reserved_bytes"] - row["traced_reserved_bytes"]) for row in rows]
    apart = [nbytes for nbytes in apart if nbytes]
    lines = paragraph(
        "`plan --exact` and `fit` write the whole history of a run from the closed form and replay it, without torch,",
        f"in {median(seconds):.2f} s of CPU time (longest {seconds[-1]:.2f} s). Here its reserved peak stands against",
        "that of the traced history; their bound adds the shortfall.",
        f"{len(apart)} of {len(rows)} differ, by at most {max(apart, default=0) / 2**20:g} MiB; a small segment has 2.",
    )
    figures = []
    for attention, own in by_kernel(rows).items():
        seen = exactness_of(attention, own)
        within = sum(abs(exact_error_pct(row)) < 0.01 for row in own)
        figures.append((attention, len(own), within, seen.median_pct, -seen.shortfall_pct, f"+{seen.excess_pct}"))
    lines += table("attention | workloads | equal within 0.01 % | median, % | lowest | highest", figures)
    worst = sorted(rows, key=lambda row: -abs(exact_error_pct(row)))[:8]
    return [
        *lines,
        *table("workload | reserved, signed %", [(row["title"], f"{exact_error_pct(row):+.3f}") for row in worst]),
    ]
