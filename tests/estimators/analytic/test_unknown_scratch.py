"""Bounds on what cuSOLVER holds."""

from dataclasses import replace

import pytest

from estimators.analytic.parameters import ParameterGroup
from estimators.analytic.steps import whole_step
from estimators.analytic.unknown_scratch import svd_copy_bytes, svd_workspace_bytes, unknown_scratch
from estimators.workload import Method, Update

TALL = ParameterGroup(name="w", shape=(1100, 400), count=2, kind="linear", itemsize=2, projected=True)
GALORE_TORCH = Method(name="galore-adamw", implementation="galore-torch", rank=64)


def test_methods_without_projectors_have_none() -> None:
    assert unknown_scratch((replace(TALL, projected=False),), Method(name="adamw")) == ()


def test_a_workspace_of_complex_doubles_that_was_seen_is_within_the_bound() -> None:
    """4.10 GiB of complex doubles for 3 x 2^20: as many fp32 elements are a quarter of that."""
    seen_bytes = 4.10 * 2**30 / 16 * 4
    assert seen_bytes < svd_workspace_bytes(3, 2**20) < 1.05 * seen_bytes


@pytest.mark.parametrize(
    ("rows", "columns", "seen_bytes"), [(640, 640, 3_453_952), (1708, 640, 6_010_880), (640, 1708, 6_210_048)]
)
def test_workspaces_of_a_profile_are_within_the_bound(rows: int, columns: int, seen_bytes: int) -> None:
    """Of fp32 matrices, in pytorch/ao's timelines of GaLore (docs/trace.md): little above mn + kk elements."""
    smaller = min(rows, columns)
    least = 4 * (rows * columns + smaller * smaller)
    assert least <= seen_bytes <= 1.06 * least
    assert seen_bytes <= svd_workspace_bytes(rows, columns)


@pytest.mark.parametrize("update", ["whole", "per-layer"])
@pytest.mark.parametrize("name", ["galore-adamw", "galore-adamw-8bit", "galore-adafactor"])
@pytest.mark.parametrize("implementation", ["galore-mem", "galore-torch"])
def test_only_the_upper_bound_grows(name: str, update: Update, implementation: str) -> None:
    method = Method(name=name, update=update, implementation=implementation, rank=64)  # type: ignore[arg-type]
    terms = unknown_scratch((TALL,), method)
    assert terms
    for term in terms:
        assert term.low_bytes == 0
        assert term.high_bytes >= 0
        assert term.reason


def test_terms_reach_what_a_decomposition_holds_at_its_own_moment() -> None:
    """The largest moment known and the terms together: gradient, cast, factors, copy and workspace of one matrix."""
    (known,) = (m for m in whole_step((TALL,), GALORE_TORCH, "steady", refresh=True) if m.phase == "refresh")
    rows, columns = TALL.shape
    factors = 4 * (rows * columns + columns * columns)
    inside = 4 * rows * columns + factors + svd_copy_bytes(rows, columns) + svd_workspace_bytes(rows, columns)
    terms = unknown_scratch((TALL,), GALORE_TORCH)
    assert known.live_bytes + sum(term.high_bytes for term in terms) >= 2 * TALL.nbytes + inside


def test_the_bound_does_not_shrink_with_the_rank() -> None:
    own = [unknown_scratch((TALL,), Method(name="galore-adamw", rank=rank))[0].high_bytes for rank in (16, 64, 400)]
    assert own == sorted(own)
