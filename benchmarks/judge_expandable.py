"""Under expandable segments: what traced histories reserve, and what histories written from the closed form do.

    python -m benchmarks.judge_expandable                  # goes on where it stopped; about half an hour in all
    python -m benchmarks.judge_expandable --again          # formulas have changed: the written half of each row anew

The judge's own grid (`benchmarks/judge.py`). One JSON object per workload is kept in benchmarks/expandable.jsonl, and
what bounds `plan --exact --alloc-conf expandable_segments:True` is made of them: profiles/exact_expandable.jsonl.
"""

import argparse
import gzip
import json
from dataclasses import asdict
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from benchmarks.judge import KEPT_ROWS, large_grid, read_rows, title
from benchmarks.judge_exact import compared
from estimators.allocator.plain import plain_peaks
from estimators.allocator.replay import replay
from estimators.allocator.settings import AllocatorSettings
from estimators.analytic.attention import attention_kernel
from estimators.analytic.cards import USUAL
from estimators.analytic.history import written_history
from estimators.workload import Workload
from galore_mem.answers.lengths import events_of
from galore_mem.answers.steps import record
from profiles.gpus import SMALL_WORKSPACE_BYTES

ROWS = Path(__file__).with_name("expandable.jsonl")
PROFILE = Path(__file__).parents[1] / "profiles" / "exact_expandable.jsonl"
EXPANDABLE = AllocatorSettings(expandable_segments=True)


def traced_bytes(workload: Workload) -> int:
    """What the traced history reserves."""
    kernel = attention_kernel(workload, None)
    recording = record(workload, kernel, workspace_bytes=SMALL_WORKSPACE_BYTES, card=USUAL)
    return replay(events_of(recording), EXPANDABLE).peak_reserved_bytes


def written_bytes(workload: Workload) -> int:
    """What the history written from the closed form reserves."""
    history = written_history(workload, None)
    return plain_peaks(history.codes, history.sizes, history.sections, is_expandable=True)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description="traced and written histories under expandable segments")
    parser.add_argument("--again", action="store_true", help="trace nothing; work the written half out anew")
    options = parser.parse_args()
    grid = {title(workload): workload for workload in large_grid()}
    rows = {row["title"]: row for row in read_rows(ROWS) if row["title"] in grid}
    left = [] if options.again else [name for name in grid if name not in rows]
    Random(0).shuffle(left)
    if options.again:
        for name, row in rows.items():
            row["written_bytes"] = written_bytes(grid[name])
    for name in left:
        workload = grid[name]
        rows[name] = row = {
            "title": name,
            "traced_bytes": traced_bytes(workload),
            "written_bytes": written_bytes(workload),
        }
        keep(rows)
        print(f"{100 * (row['written_bytes'] / row['traced_bytes'] - 1):+8.4f} %  {name}", flush=True)
    keep(rows)
    summarise(rows)


def summarise(rows: dict[str, dict[str, Any]]) -> None:
    """Write the profile, and say how expandable segments compare with the default settings."""
    kept = [json.loads(line) for line in gzip.decompress(KEPT_ROWS.read_bytes()).decode().splitlines()]
    found = []
    for row in (row for row in kept if row["title"] in rows):
        own = rows[row["title"]]
        traced = {"traced_reserved_bytes": own["traced_bytes"], "exact_reserved_bytes": own["written_bytes"]}
        found.append(row | traced | {"default_bytes": row["traced_reserved_bytes"]})
    lines = [json.dumps(asdict(own) | {"source": SOURCE}) for own in compared(found, [])]
    PROFILE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    more = [row["traced_reserved_bytes"] - row["default_bytes"] for row in found]
    shares = [100 * own / row["default_bytes"] for own, row in zip(more, found, strict=True)]
    print(
        f"{len(found)} histories reserve {median(shares):+.1f} % in the median ({min(shares):+.1f} to "
        f"{max(shares):+.1f} %), {sum(own > 0 for own in more)} of them more, by at most {max(more) >> 20} MiB"
    )


SOURCE = "benchmarks/judge_expandable.py: traced and written histories under expandable segments, through one replica"


def keep(rows: dict[str, dict[str, Any]]) -> None:
    """Write all rows, sorted by name."""
    partial = ROWS.with_suffix(".partial")
    partial.write_text("".join(json.dumps(rows[name]) + "\n" for name in sorted(rows)), encoding="utf-8")
    partial.replace(ROWS)


if __name__ == "__main__":
    main()
