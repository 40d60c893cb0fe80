"""The linear program behind the ranges, against every corner it could end in."""

from itertools import combinations
from random import Random

import pytest

from benchmarks.enclosed import by_kind as ranges_by_kind
from benchmarks.enclosed import left_out, model_of, ranges_of, slack
from benchmarks.enclosing import least_shares

Rows = list[tuple[float, float]]


def cost(shares: tuple[float, float], rows: Rows) -> float:
    return sum(shares[0] * first + shares[1] * second for first, second in rows) / len(rows)


def cheapest_corner(rows: Rows, wanted: list[float]) -> float:
    """By trying every pair of lines, the axes among them."""
    lines = [(*row, goal) for row, goal in zip(rows, wanted, strict=True)] + [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)]
    found = []
    for (a, b, goal), (c, d, other) in combinations(lines, 2):
        if abs(a * d - b * c) < 1e-12:
            continue
        x, y = (goal * d - b * other) / (a * d - b * c), (a * other - c * goal) / (a * d - b * c)
        if all(p * x + q * y >= r - 1e-9 for p, q, r in lines):
            found.append(cost((x, y), rows))
    return min(found)


@pytest.mark.parametrize("seed", range(20))
def test_shares_are_the_cheapest_that_reach_everything(seed: int) -> None:
    random = Random(seed)
    rows: Rows = [(random.random(), random.random() * random.randrange(2)) for _ in range(30)]
    wanted = [random.gauss(0.2, 0.3) for _ in rows]
    first, second = least_shares(rows, wanted)
    assert cost((first, second), rows) == pytest.approx(cheapest_corner(rows, wanted))
    assert all(a * first + b * second >= goal - 1e-9 for (a, b), goal in zip(rows, wanted, strict=True))


def test_what_cannot_be_reached_is_said() -> None:
    with pytest.raises(ValueError, match="nothing to take a share of"):
        least_shares([(1.0, 0.0), (0.0, 0.0)], (1.0, 1.0))


def runs(seed: int, models: int = 4) -> list[dict[str, object]]:
    random, found = Random(seed), []
    for number in range(40):
        live, lasting = random.randrange(4 << 30, 16 << 30), random.randrange(1 << 30, 4 << 30)
        demand = live + random.randrange(4 << 30)
        beyond = int(0.1 * (live - lasting) + random.random() * 0.5 * (demand - live)) + (20 << 20)
        found.append(
            {
                "run": f"model-{number % models} adamw whole None {number}",
                "checkpointing": "full",
                "live": live,
                "lasting": lasting,
                "states": lasting // 2,
                "demand": demand,
                "segments": 0,
                "allocated": live,
                "reserved": live + beyond,
            }
        )
    return found


def test_ranges_enclose_what_they_are_made_of() -> None:
    rows = runs(0)
    ranges = ranges_by_kind(ranges_of(rows, margin=0.0))
    assert min(slack(row, ranges) for row in rows) >= 0
    assert min(slack(row, ranges) for row in rows) < 0.01


def test_a_model_that_is_left_out_may_pass_the_others_range() -> None:
    rows = runs(1)
    rows[0]["reserved"] = int(str(rows[0]["reserved"])) + (4 << 30)
    found = {group.name: group for group in left_out(rows, model_of, margin=0.0)}
    assert found["model-0"].passed >= 1
    assert found["model-0"].worst > 0.05
    assert sum(group.runs for group in found.values()) == len(rows)
