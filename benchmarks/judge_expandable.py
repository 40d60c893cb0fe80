"""Under expandable segments: what traced histories reserve, and what histories written from the closed form do.

    python -m benchmarks.judge_expandable                  # goes on where it stopped; about half an hour in all
    python -m benchmarks.judge_expandable --again          # formulas have changed: the written half of each row anew

The judge's own grid (`benchmarks/judge.py`). One JSON object per workload is kept in benchmarks/expandable.jsonl. What
bounds `plan --exact --alloc-conf expandable_segments:True` and `fit` is made of them and of every family's, which
`benchmarks/family_judge.py` replays under both settings: profiles/exact_expandable.jsonl.
"""

import argparse
import gzip
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from benchmarks import family_judge
from benchmarks.judge import KEPT_ROWS, large_grid, read_rows, title
from benchmarks.judge_exact import by_kernel, compared
from benchmarks.pages import paragraph, table
from benchmarks.reserved import (
    FIGURES,
    MIB,
    apart_bytes,
    beside_defaults,
    figures,
    largest,
    under_expandable,
)
from estimators.allocator.plain import plain_peaks
from estimators.allocator.replay import replay
from estimators.allocator.settings import EXPANDABLE
from estimators.analytic.attention import attention_kernel
from estimators.analytic.cards import USUAL
from estimators.analytic.history import written_history
from estimators.workload import Workload
from galore_mem.answers.lengths import events_of
from galore_mem.answers.steps import record
from profiles.gpus import SMALL_WORKSPACE_BYTES

Row = dict[str, Any]
ROWS = Path(__file__).with_name("expandable.jsonl")
PROFILE = Path(__file__).parents[1] / "profiles" / "exact_expandable.jsonl"


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
    summarise()


def judged_rows(judged: Iterable[Row]) -> list[Row]:
    """Rows of `benchmarks/judge.py` with what both histories reserve under expandable segments, where that is kept."""
    known = {row["title"]: row for row in read_rows(ROWS)}
    return [
        row | {"traced_expandable_bytes": own["traced_bytes"], "exact_expandable_bytes": own["written_bytes"]}
        for row in judged
        if (own := known.get(row["title"])) is not None
    ]


def summarise() -> None:
    """Write the profile, and say how expandable segments compare with the default settings."""
    judged = judged_rows(map(json.loads, gzip.decompress(KEPT_ROWS.read_bytes()).decode().splitlines()))
    families = family_judge.read_rows(family_judge.ROWS)
    every = compared([*map(under_expandable, judged)], [*map(under_expandable, families)])
    lines = [json.dumps(asdict(own) | {"source": SOURCE}) for own in every]
    PROFILE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"beside the default settings traced histories reserve {beside_defaults([*judged, *families])}")


SOURCE = (
    "benchmarks/judge_expandable.py and family_judge.py: traced histories, and written ones, under expandable segments"
)


def expandable_lines(judged: list[Row], families: list[Row]) -> list[str]:
    """Of `plan --exact` and `fit` under expandable segments.

    Args:
        judged: rows of `judged_rows`.
        families: of `benchmarks/family_judge.py`.
    """
    apart = [abs(apart_bytes(under_expandable(row))) for row in judged]
    lines = paragraph(
        "The same histories were replayed under `expandable_segments:True`, which `fit` takes where it makes more fit:",
        f"of {len(judged)} written ones {sum(map(bool, apart))} differ from traced ones, by at most",
        f"{max(apart) / MIB:g} MiB. Of all families' another {len(families)} [families.md](families.md) has a table.",
        f"Beside the default settings traced ones reserve {beside_defaults([*judged, *families])}.",
    )
    groups = by_kernel([*map(under_expandable, judged)])
    lines += table(f"attention | {FIGURES}", [(attention, *figures(own)) for attention, own in groups.items()])
    return [*lines, *largest(map(under_expandable, judged))]


def keep(rows: dict[str, Row]) -> None:
    """Write all rows, sorted by name."""
    partial = ROWS.with_suffix(".partial")
    partial.write_text("".join(json.dumps(rows[name]) + "\n" for name in sorted(rows)), encoding="utf-8")
    partial.replace(ROWS)


if __name__ == "__main__":
    main()
