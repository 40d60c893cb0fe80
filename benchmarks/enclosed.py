"""From replayed runs to the ranges that enclose them, and other models' runs held against such ranges."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from math import ceil
from statistics import mean, median
from typing import Any, NamedTuple

from benchmarks.enclosing import least_shares
from profiles.models import find_model
from profiles.ranges import MIB, SEGMENT_BYTES, Range

Row = dict[str, Any]
Kind = tuple[str, str, str]
MARGIN = 0.05
"""Added to every share: what runs of families that were left out asked for (docs/accuracy.md)."""
SOURCE = "benchmarks/ranges.py: histories written from the closed form, through the replica of the allocator"


def kind_of(row: Row) -> Kind:
    """The class whose range holds for a row: update, implementation, checkpointing."""
    _, _, update, implementation, _ = row["run"].split()
    return update, "galore-mem" if implementation == "None" else implementation, row["checkpointing"]


def model_of(row: Row) -> str:
    """The model's name."""
    return str(row["run"].split()[0])


def family_of(row: Row) -> str:
    """The model's type, as its config names it."""
    return _type_of(model_of(row))


@lru_cache(maxsize=256)
def _type_of(model: str) -> str:
    return find_model(model).shape.model_type


def beyond_bytes(row: Row) -> int:
    """Reserved memory beyond the closed form's central figure."""
    return int(row["reserved"] - row["live"] - row["segments"])


def ranges_of(rows: Iterable[Row], margin: float = MARGIN) -> list[Range]:
    """The range of each class: of an update the cheapest that encloses its rows, in relation to what each reserves.

    Shares of forwards that are run again, and of galore_torch's decompositions, come on top of those that all have.
    """
    found = []
    for _, own in sorted(grouped(rows, lambda row: kind_of(row)[0]).items()):
        parts = [[part / row["reserved"] for part in _parts(row)] for row in own]
        wanted = [(beyond_bytes(row) - SEGMENT_BYTES) / row["reserved"] for row in own]
        shares = [share * (1 + margin) for share in least_shares(parts, wanted)]
        found += [_range(kind, alike, shares) for kind, alike in sorted(grouped(own, kind_of).items())]
    return found


def _parts(row: Row) -> tuple[float, ...]:
    """What shares are taken of."""
    _, implementation, checkpointing = kind_of(row)
    transient, demand = max(row["live"] - row["lasting"], 0), max(row["demand"] - row["live"], 0)
    again, theirs = checkpointing == "full", implementation == "galore-torch"
    lesser, states = min(transient, row["lasting"]), row["states"]
    return transient, transient * again, transient * theirs, demand, lesser, states, states * theirs, MIB


def _range(kind: Kind, rows: list[Row], shares: list[float]) -> Range:
    transient, again, decomposed, demand, lesser, states, their_states, least = shares
    update, implementation, checkpointing = kind
    theirs = implementation == "galore-torch"
    return Range(
        update=update,  # type: ignore[arg-type]
        implementation=implementation,  # type: ignore[arg-type]
        checkpointing=checkpointing,  # type: ignore[arg-type]
        rows=len(rows),
        transient_pct=outwards(100 * (transient + again * (checkpointing == "full") + decomposed * theirs)),
        demand_pct=outwards(100 * demand),
        lesser_pct=outwards(100 * lesser),
        states_pct=outwards(100 * (states + their_states * theirs)),
        least_mib=outwards(SEGMENT_BYTES / MIB + least),
        allocated_pct=outwards(max(100 * (row["allocated"] / row["live"] - 1) for row in rows)),
        source=SOURCE,
    )


def outwards(value: float) -> float:
    """To a tenth above."""
    return ceil(10 * value - 1e-9) / 10


def grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """Rows by a key."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def by_kind(ranges: Iterable[Range]) -> dict[Kind, Range]:
    """Ranges by their class."""
    return {(found.update, found.implementation, found.checkpointing): found for found in ranges}


def slack(row: Row, ranges: dict[Kind, Range]) -> float:
    """Room between reserved memory and its bound, as a share of reserved memory; negative where it is passed."""
    bound = ranges[kind_of(row)].beyond_bytes(row["live"], row["lasting"], row["states"], row["demand"])
    return float(bound - beyond_bytes(row)) / float(row["reserved"])


class LeftOut(NamedTuple):
    """Runs of one model or family against ranges that the others' made."""

    name: str
    runs: int
    passed: int
    worst: float
    """By which one passed its bound, as a share of reserved memory; 0 where none did."""


def left_out(rows: list[Row], group_of: Callable[[Row], str], margin: float = MARGIN) -> list[LeftOut]:
    """Each group against the ranges of the others."""
    found = []
    for name, own in sorted(grouped(rows, group_of).items()):
        ranges = by_kind(ranges_of((row for row in rows if group_of(row) != name), margin))
        slacks = [slack(row, ranges) for row in own]
        found.append(LeftOut(name, len(own), sum(room < 0 for room in slacks), max(0.0, -min(slacks))))
    return found


def width(rows: list[Row], ranges: list[Range]) -> tuple[float, float, float]:
    """How far bounds lie above what was reserved, as shares of it: median, mean, and what 95 % stay within."""
    known = by_kind(ranges)
    slacks = sorted(slack(row, known) for row in rows)
    return median(slacks), mean(slacks), slacks[int(0.95 * len(slacks))]
