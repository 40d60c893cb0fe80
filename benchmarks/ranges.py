"""How much the allocator holds beyond live tensors: thousands of runs replayed, and profiles/ranges.jsonl made of them.

    python benchmarks/ranges.py          # replays what is missing from the rows that are kept, and writes the ranges
    python benchmarks/ranges.py --anew   # replays all of them

Histories are written from the closed form; docs/accuracy.md lays them beside traced ones. Each run is drawn by a seed
of its own: a model of the catalogue, a method, and whatever else people set, in a batch that fits some card. Rows are
kept in benchmarks/replayed.jsonl.gz; an interrupted run goes on where it was. `benchmarks/judge_report.py` says of the
ranges how far they carry.
"""

import argparse
import gzip
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.enclosed import ranges_of
from benchmarks.kinds_of_runs import Cell, cells, models, workload_of
from estimators.allocator.plain import plain_peaks
from estimators.allocator.replay import replay
from estimators.analytic.bounds import margins_of
from estimators.analytic.demand import Demand
from estimators.analytic.estimate import outliner_of
from estimators.analytic.history import written_history
from estimators.workload import Workload

Row = dict[str, Any]
ROOT = Path(__file__).parents[1]
RANGES = ROOT / "profiles" / "ranges.jsonl"
KEPT = ROOT / "benchmarks" / "replayed.jsonl.gz"
PARTIAL = ROOT / "benchmarks" / "replayed.partial"
JUDGED = ROOT / "benchmarks" / "judged.jsonl"
DRAWN = 3500
"""Cells of all models, in an order that is a fair sample wherever it ends."""
FIRST_MODELS = 25
"""Models of the catalogue, LLaMAs and Mistrals, of which there is a run of every method besides."""


def chosen() -> list[Cell]:
    """The cells of the grid that are run."""
    known = list(cells())
    first = models()[:FIRST_MODELS]
    every = [cell for cell in known if cell.turn == 0 and cell.model in first]
    Random(0).shuffle(known)
    return list(dict.fromkeys((*known[:DRAWN], *every)))


def row_of(cell: Cell, workload: Workload) -> Row:
    """One run's figures, in bytes."""
    outliner, history = outliner_of(workload, None), written_history(workload)
    if 0 in history.codes:
        run = replay(history.events())
        allocated, reserved = run.peak_allocated_bytes, run.peak_reserved_bytes
    else:
        allocated, reserved = plain_peaks(history.codes, history.sizes, history.sections)
    return {
        "run": cell.name,
        "checkpointing": workload.checkpointing,
        "live": outliner.peak_bytes,
        "lasting": outliner.lasting_bytes,
        "states": outliner.stepping.states_bytes,
        "demand": Demand(workload, outliner).of(outliner.course),
        "segments": margins_of(workload, None).segments_bytes,
        "allocated": allocated,
        "reserved": reserved,
    }


def replayed_rows() -> list[Row]:
    """The rows that are kept, in order."""
    rows = map(json.loads, gzip.decompress(KEPT.read_bytes()).decode().splitlines())
    return [row for row in rows if "live" in row]


def traced_rows() -> list[Row]:
    """The judge's traced runs as rows of the same kind; they count in the ranges, too."""
    found = []
    for line in JUDGED.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        model, method, update, implementation, *_, checkpointing = row["title"].split()[:9]
        found.append(
            {
                "run": f"{model} {method} {update} {implementation} 0",
                "checkpointing": checkpointing,
                "live": row["analytic_live_bytes"],
                "lasting": row["lasting_bytes"],
                "states": row["states_bytes"],
                "demand": row["demand_bytes"],
                "segments": row["central_reserved_bytes"] - row["analytic_live_bytes"],
                "allocated": row["traced_allocated_bytes"],
                "reserved": row["traced_reserved_bytes"],
            }
        )
    return found


def missing(known: set[str]) -> Iterator[Row]:
    """A row for each run that is not known yet; None of its figures where no batch fits any card."""
    for cell in chosen():
        if cell.name not in known:
            workload = workload_of(cell)
            yield {"run": cell.name} if workload is None else row_of(cell, workload)


def main() -> None:
    parser = argparse.ArgumentParser(description="ranges of reserved memory, from replayed runs")
    parser.add_argument("--anew", action="store_true", help="replay everything")
    options = parser.parse_args()
    if not PARTIAL.exists():
        kept = "" if options.anew or not KEPT.exists() else gzip.decompress(KEPT.read_bytes()).decode()
        PARTIAL.write_text(kept, encoding="utf-8")
    lines = [line for line in PARTIAL.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    rows = {row["run"]: row for row in map(json.loads, lines)}
    with PARTIAL.open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)
        for row in missing(set(rows)):
            rows[row["run"]] = row
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(f"{len(rows)}  {row['run']}", flush=True)
    wanted = [rows[cell.name] for cell in chosen()]
    write(KEPT, gzip.compress("".join(json.dumps(row) + "\n" for row in wanted).encode(), mtime=0))
    found = ranges_of([row for row in wanted if "live" in row] + traced_rows())
    write(RANGES, "".join(json.dumps(asdict(entry)) + "\n" for entry in found).encode())
    PARTIAL.unlink()


def write(path: Path, content: bytes) -> None:
    """Through a temporary file."""
    partial = path.with_suffix(".new")
    partial.write_bytes(content)
    partial.replace(path)


if __name__ == "__main__":
    main()
