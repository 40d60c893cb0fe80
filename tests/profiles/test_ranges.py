"""Ranges of allocated and reserved memory that plans use."""

import pytest

from profiles.ranges import EDGES_BYTES, SEGMENT_BYTES, Range, choose, class_of, exactness, range_for


def made(live_class: int, transient_pct: int = 10, live_pct: int = 2) -> Range:
    return Range(
        update="whole",
        implementation="galore-mem",
        optimizer="other",
        live_class=live_class,
        rows=1,
        transient_pct=transient_pct,
        live_pct=live_pct,
        allocated_pct=0.5,
        source="a test",
    )


def test_the_smaller_of_both_shares_counts_and_one_segment() -> None:
    found = made(0)
    assert found.beyond_bytes(1000 << 20, 100 << 20) == SEGMENT_BYTES + (10 << 20)
    assert found.beyond_bytes(1000 << 20, 900 << 20) == SEGMENT_BYTES + (20 << 20)
    assert found.beyond_bytes(1000 << 20, -1) == SEGMENT_BYTES


def test_classes_are_cut_at_their_edges() -> None:
    assert [class_of(edge) for edge in EDGES_BYTES] == [0, 1]
    assert [class_of(edge + 1) for edge in EDGES_BYTES] == [1, 2]


def test_the_nearest_class_stands_in_for_one_that_was_not_seen() -> None:
    assert choose([made(0), made(1)], "whole", "galore-mem", "adamw", 2).live_class == 1
    with pytest.raises(ValueError, match="empty"):
        choose([made(0)], "whole", "galore-mem", "adafactor", 0)


@pytest.mark.parametrize("update", ["whole", "per-layer"])
@pytest.mark.parametrize("implementation", ["galore-mem", "galore-torch"])
@pytest.mark.parametrize("optimizer", ["adamw-8bit", "adafactor"])
@pytest.mark.parametrize("live_class", [0, 1, 2])
def test_every_class_has_a_range_with_its_source(
    update: str, implementation: str, optimizer: str, live_class: int
) -> None:
    found = range_for(update, implementation, optimizer, live_class)
    assert found.live_class == live_class
    assert found.rows > 0
    assert found.source
    assert 0 <= found.live_pct <= 100
    assert 0 <= found.allocated_pct <= 10


@pytest.mark.parametrize("update", ["whole", "per-layer"])
@pytest.mark.parametrize("kind", ["adapters", "quantised"])
def test_adapters_beside_frozen_weights_have_ranges_of_their_own(update: str, kind: str) -> None:
    for live_class in (0, 1, 2):
        found = range_for(update, "galore-mem", kind, live_class)
        assert (found.optimizer, found.live_class) == (kind, live_class)
        assert found != range_for(update, "galore-mem", "adamw", live_class)


def test_exactness_is_known() -> None:
    for kernel in ("flash", "math"):
        seen = exactness(kernel)
        assert seen.rows >= 20
        assert 0 <= seen.median_pct <= min(seen.excess_pct, seen.shortfall_pct)
        assert seen.covers("llama", "galore-adamw-8bit")
        assert not seen.covers("gpt2", "adamw")
    assert exactness("eager") == exactness("flash") != exactness("math")
