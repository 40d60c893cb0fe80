"""Ranges of allocated and reserved memory that plans use."""

import json
from dataclasses import asdict
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from profiles.ranges import Kind, Range, exactness, range_for

MIB = 1 << 20
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
KINDS = [
    (update, implementation, checkpointing)
    for update in ("whole", "per-layer")
    for implementation in ("galore-mem", "galore-torch")
    for checkpointing in ("none", "full")
]


def rows_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (BENCHMARKS / name).read_text(encoding="utf-8").splitlines()]


def made(**shares: float) -> Range:
    none = dict.fromkeys(("transient_pct", "demand_pct", "lesser_pct", "states_pct", "least_mib"), 0.0)
    return Range(
        update="whole",
        implementation="galore-mem",
        checkpointing="none",
        rows=1,
        allocated_pct=0.5,
        source="a test",
        **none | shares,
    )


def beyond_mib(found: Range, live: int, lasting: int, states: int, demand: int) -> float:
    return found.beyond_bytes(live * MIB, lasting * MIB, states * MIB, demand * MIB) / MIB


def test_each_share_is_taken_of_its_own_part() -> None:
    assert beyond_mib(made(least_mib=20), 1000, 900, 500, 1000) == 20
    assert beyond_mib(made(transient_pct=10), 1000, 900, 500, 1000) == 10
    assert beyond_mib(made(lesser_pct=10), 1000, 900, 500, 1000) == 10
    assert beyond_mib(made(lesser_pct=10), 1000, 50, 0, 1000) == 5
    assert beyond_mib(made(states_pct=10), 1000, 900, 500, 1000) == 50
    assert beyond_mib(made(demand_pct=10), 1000, 900, 500, 1500) == 50
    assert beyond_mib(made(transient_pct=10, demand_pct=20, least_mib=3), 1000, 900, 0, 1100) == 33


def test_nothing_is_taken_of_less_than_nothing() -> None:
    assert beyond_mib(made(transient_pct=10, lesser_pct=10, demand_pct=10), 1000, 1001, 0, 900) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_every_class_has_a_range_with_its_source(kind: tuple[str, str, str]) -> None:
    found = range_for(*kind)
    assert (found.update, found.implementation, found.checkpointing) == kind
    assert found.rows >= 50
    assert found.source.startswith("benchmarks/ranges.py")
    assert found.least_mib >= 20
    assert 0 <= found.allocated_pct <= 10
    assert found.demand_pct <= 100


@pytest.mark.parametrize("kind", KINDS)
def test_a_bound_grows_with_live_bytes_whatever_the_demand(kind: tuple[str, str, str]) -> None:
    """A larger live peak leaves less demand beyond it; searches rely on the sum all the same."""
    found = range_for(*kind)
    bounds = [live + beyond_mib(found, live, 4000, 1000, 20000) for live in range(4000, 30000, 500)]
    assert bounds == sorted(bounds)


ASKED = Kind(
    family="gemma3_text",
    method="galore-adamw-8bit",
    update="per-layer",
    implementation="galore-mem",
    precision="bf16",
    checkpointing="full",
    kernel="flash",
    accumulates=False,
    chunked_tokens=65536,
)


def test_exactness_is_known() -> None:
    for kernel in ("flash", "math"):
        seen = exactness(kernel)
        assert seen.rows >= 20
        assert 0 <= seen.shortfall_pct <= 0.5
        assert all(row.median_pct <= max(row.excess_pct, row.shortfall_pct) for row in seen.families.values())
        assert all(row.source.startswith("benchmarks/judge.py") for row in seen.families.values())
    assert exactness("eager") == exactness("flash") != exactness("math")


def test_exactness_under_expandable_segments_is_that_of_the_rows_that_are_kept() -> None:
    seen = [exactness(kernel, is_expandable=True) for kernel in ("flash", "math")]
    pairs = [(row["written_bytes"], row["traced_bytes"]) for row in rows_of("expandable.jsonl")]
    pairs += [(row["exact_expandable_bytes"], row["traced_expandable_bytes"]) for row in rows_of("families.jsonl")]
    errors = [100 * (written / traced - 1) for written, traced in pairs]
    assert sum(own.rows for own in seen) == len(errors)  # no family is left out
    assert max(own.shortfall_pct for own in seen) == ceil(-100 * min(errors)) / 100
    assert max(own.excess_pct for own in seen) == ceil(100 * max(errors)) / 100
    assert sum(error == 0 for error in errors) > 0.9 * len(errors)
    assert max(map(abs, errors)) <= 0.5


@pytest.mark.parametrize("kernel", ["flash", "math"])
def test_the_same_kinds_of_runs_were_compared_under_both_settings(kernel: str) -> None:
    """So that `fit` may hold any candidate against either."""
    default, expandable = (exactness(kernel, is_expandable=under).families for under in (False, True))
    assert default.keys() == expandable.keys()
    for family, own in default.items():
        apart = {key for key, value in asdict(own).items() if asdict(expandable[family])[key] != value}
        assert apart <= {"median_pct", "shortfall_pct", "excess_pct", "source"}, family


def test_what_is_asked_most_was_compared() -> None:
    for family in exactness().families.keys() - {"bert", "roberta", "t5"}:  # which have no chunked loss
        assert exactness().covers(ASKED._replace(family=family, kernel=_kernel_of(family))), family


def _kernel_of(family: str) -> str:
    return "eager" if family in ("bloom", "gemma2", "gpt_oss") else "flash"


@pytest.mark.parametrize(
    "trait",
    [
        {"family": "deepseek_v2"},
        {"method": "qlora"},
        {"kernel": "math-like"},
        {"precision": "fp64"},
        {"checkpointing": "some"},
        {"update": "sometimes"},
        {"implementation": "another"},
        {"chunked_tokens": 65537},
    ],
)
def test_one_trait_that_no_run_had_is_enough(trait: dict[str, Any]) -> None:
    assert exactness().covers(ASKED)
    assert exactness().covers(ASKED._replace(precision="amp-fp16"))  # as large as the amp-bf16 that was compared
    assert not exactness().covers(ASKED._replace(**trait))
