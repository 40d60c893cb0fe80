"""Reserved memory of histories written from the closed form beside that of traced ones: tables of both judges."""

from collections.abc import Iterable
from statistics import median
from typing import Any

from benchmarks.pages import table

Row = dict[str, Any]
MOST_PCT = 0.5
"""A family of which one figure is further below its trace has no bound made of replays."""
NAMED = 8
"""Rows that are named, those furthest off first."""
MIB = 2**20
FIGURES = "workloads | equal | median, % | lowest | highest | largest, MiB"


def exact_error_pct(row: Row) -> float:
    """Of the written history's, against the traced one's, signed."""
    ratio: float = row["exact_reserved_bytes"] / row["traced_reserved_bytes"]
    return 100 * (ratio - 1)


def apart_bytes(row: Row) -> int:
    """The same in bytes."""
    return int(row["exact_reserved_bytes"] - row["traced_reserved_bytes"])


def under_expandable(row: Row) -> Row:
    """A row of either judge with what both histories reserve under expandable segments in place of the default ones."""
    traced, written = row["traced_expandable_bytes"], row["exact_expandable_bytes"]
    return row | {"traced_reserved_bytes": traced, "exact_reserved_bytes": written}


def beside_defaults(rows: Iterable[Row]) -> str:
    """What traced histories reserve under expandable segments, beside what they reserve by default."""
    pairs = [(row["traced_expandable_bytes"], row["traced_reserved_bytes"]) for row in rows]
    shares = [100 * (own / default - 1) for own, default in pairs]
    more = [own - default for own, default in pairs if own > default]
    return (
        f"{median(shares):+.1f} % in the median ({min(shares):+.1f} to {max(shares):+.1f} %), {len(more)} of "
        f"{len(pairs)} more, by at most {max(more, default=0) // MIB} MiB"
    )


def figures(own: list[Row]) -> tuple[object, ...]:
    """One line of a table, without its name."""
    errors = [*map(exact_error_pct, own)]
    equal = sum(not apart_bytes(row) for row in own)
    largest = max(abs(apart_bytes(row)) for row in own) / MIB
    return (len(own), equal, f"{median(map(abs, errors)):.4f}", f"{min(errors):+.3f}", f"{max(errors):+.3f}", largest)


def family_table(rows: Iterable[Row]) -> list[str]:
    """Of every family."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["family"], []).append(row)
    return table(f"family | {FIGURES}", [(family, *figures(own)) for family, own in groups.items()])


def largest(rows: Iterable[Row]) -> list[str]:
    """Runs that differ most."""
    worst = [row for row in sorted(rows, key=lambda row: -abs(exact_error_pct(row)))[:NAMED] if apart_bytes(row)]
    lines = [(row["title"], f"{exact_error_pct(row):+.3f}", f"{apart_bytes(row) / MIB:+g}") for row in worst]
    return table("workload | reserved, signed % | MiB", lines)


def left_out(rows: Iterable[Row]) -> str:
    """Names of the families that are too far below their traces."""
    return ", ".join(sorted({row["family"] for row in rows if exact_error_pct(row) < -MOST_PCT})) or "none"
