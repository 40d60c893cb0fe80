"""What `plan --exact` says of runs, beside what was traced: for the pages and profiles/exact.jsonl."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import family_judge
from benchmarks.judge import large_grid, read_rows, title
from benchmarks.pages import paragraph, table
from benchmarks.reserved import (
    FIGURES,
    MIB,
    MOST_PCT,
    apart_bytes,
    exact_error_pct,
    family_table,
    figures,
    largest,
    left_out,
)
from estimators.allocator.replay import replay
from estimators.analytic.attention import attention_kernel
from estimators.analytic.history import history_of
from estimators.workload import Workload
from galore_mem.answers.exact import kind_of
from profiles.ranges import Attention, Compared, Kind

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


def compared(rows: list[Row], families: list[Row]) -> list[Compared]:
    """What was seen of each family whose figures are near, under attention by separate products and under all else.

    Args:
        rows: of `benchmarks/judge.py`.
        families: of `benchmarks/family_judge.py`.
    """
    found = list(_kinds(rows, families))
    near = {kind.family for kind, _ in found} - {kind.family for kind, row in found if exact_error_pct(row) < -MOST_PCT}
    groups: dict[tuple[Attention, str], list[tuple[Kind, Row]]] = {}
    for attention in ("other", "math"):
        for kind, row in found:
            if kind.family in near and (kind.kernel == "math") is (attention == "math"):
                groups.setdefault((attention, kind.family), []).append((kind, row))
    everything = {family: [kind for kind, _ in found if kind.family == family] for family in near}
    return [_compared(attention, family, own, everything[family]) for (attention, family), own in groups.items()]


def _kinds(rows: list[Row], families: list[Row]) -> Iterator[tuple[Kind, Row]]:
    """What kind of run each row is of."""
    judged = {title(workload): workload for workload in large_grid()}
    played = {name: workload for _, name, workload in family_judge.grid()}
    for known, own in ((judged, rows), (played, families)):
        yield from ((_kind(known[row["title"]]), row) for row in own)


def _kind(workload: Workload) -> Kind:
    return kind_of(workload, attention_kernel(workload, None))


def _compared(attention: Attention, family: str, own: list[tuple[Kind, Row]], every: list[Kind]) -> Compared:
    """Outwards to hundredths; a step knows nothing of attention, so how it is done is counted over `every` run."""
    errors = [exact_error_pct(row) for _, row in own]

    def seen(trait: Callable[[Kind], Any], kinds: Iterable[Kind] = tuple(kind for kind, _ in own)) -> tuple[Any, ...]:
        return tuple(sorted({trait(kind) for kind in kinds}))

    return Compared(
        family=family,
        attention=attention,
        rows=len(own),
        median_pct=round(median(map(abs, errors)), 4),
        shortfall_pct=max(0.0, ceil(-100 * min(errors)) / 100),
        excess_pct=max(0.0, ceil(100 * max(errors)) / 100),
        methods=seen(lambda kind: kind.method, every),
        updates=seen(lambda kind: kind.update, every),
        implementations=seen(lambda kind: kind.implementation, every),
        precisions=seen(lambda kind: kind.precision.partition("-")[0]),
        checkpointing=seen(lambda kind: kind.checkpointing),
        kernels=seen(lambda kind: kind.kernel),
        accumulates=seen(lambda kind: kind.accumulates, every),
        chunked_tokens=max(kind.chunked_tokens for kind, _ in own),
        source="benchmarks/judge.py and family_judge.py: traced histories, and written ones, through one replica",
    )


def by_kernel(rows: list[Row]) -> dict[str, list[Row]]:
    """The judge's rows under attention by separate products, and all others."""
    found: dict[str, list[Row]] = {"other": [], "math": []}
    for row in rows:
        found["math" if row["workload"]["attention"] == "math" else "other"].append(row)
    return found


def exact_lines(rows: list[Row], families: list[Row]) -> list[str]:
    """Of `plan --exact`."""
    seconds = sorted(row["exact_seconds"] for row in rows)
    apart = [abs(apart_bytes(row)) for row in rows if apart_bytes(row)]
    lines = paragraph(
        "`plan --exact` and `fit` write the whole history of a run from the closed form and replay it, without torch,",
        f"in {median(seconds):.2f} s of CPU time (longest {seconds[-1]:.2f} s). Here its reserved peak stands against",
        "that of the traced history; their bound adds the largest shortfall of all runs under such attention.",
        f"{len(apart)} of {len(rows)} differ, by at most {max(apart, default=0) / MIB:g} MiB; a small segment has 2.",
    )
    by_attention = [(attention, *figures(own)) for attention, own in by_kernel(rows).items()]
    lines += table(f"attention | {FIGURES}", by_attention)
    lines += largest(rows)
    lines += paragraph(
        f"Of all families another {len(families)} runs were traced ([families.md](families.md)). A bound follows from",
        "replays for what was compared: a family, and of its runs each method, update, implementation, precision,",
        "checkpointing, attention kernel, accumulation, and tokens of a chunked loss; others keep the closed form's",
        f"bound beside the replayed figure. Families that fall short by more than {MOST_PCT} %: {left_out(families)}.",
    )
    return [*lines, *family_table(families), *largest(families)]
