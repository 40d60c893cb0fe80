"""Bars are drawn to scale."""

from hypothesis import given
from hypothesis import strategies as st

from estimators.footprint import CATEGORIES, Footprint, Moment
from galore_mem.render.bars import Scale, bar, scale_for
from galore_mem.render.palette import BOUND, CONTEXT, PARTS

GIB = 2**30
sizes = st.integers(0, 80 * GIB)


def footprint(by_category: dict[str, int], process_bytes: int, upper_bytes: int) -> Footprint:
    """A footprint of one moment (and a smaller one, for a runner-up)."""
    peak = Moment(iteration="steady", name="step", phase="step", by_category=by_category)
    less = Moment(iteration="steady", name="loss", phase="loss", by_category={})
    return Footprint(
        source="analytic",
        moments=(peak, less),
        resident_bytes={},
        terms=(),
        peak_allocated_bytes=process_bytes,
        peak_reserved_bytes=process_bytes,
        process_bytes=process_bytes,
        upper_bytes=upper_bytes,
    )


drawn = st.builds(
    lambda shares, beyond, bound: footprint(
        shares, sum(shares.values()) + beyond, sum(shares.values()) + beyond + bound
    ),
    st.dictionaries(st.sampled_from(CATEGORIES), sizes.filter(bool), min_size=1),
    sizes,
    sizes,
)


def test_every_category_has_one_look_and_no_two_parts_share_one() -> None:
    parts = [*PARTS, CONTEXT, BOUND]
    assert sorted(category for part in PARTS for category in part.categories) == sorted(CATEGORIES)
    for looks in ([part.glyph for part in parts], [part.ascii for part in parts], [part.colour for part in parts]):
        assert len(set(looks)) == len(parts)
    assert all(part.ascii.isascii() for part in parts)


@given(drawn, st.integers(20, 200), st.integers(1, 200 * GIB) | st.none())
def test_bars_fill_their_line_and_mark_what_does_not_fit(found: Footprint, cells: int, capacity: int | None) -> None:
    scale = scale_for([found], capacity, cells)
    text = bar(found, scale, unicode=True).plain
    assert len(text) == cells
    assert ("▶" in text) is (found.upper_bytes > scale.full_bytes and scale.capacity_cell != cells - 1)
    if capacity is None:
        assert found.upper_bytes <= scale.full_bytes
    else:
        assert text.count("┃") == 1


@given(drawn, st.integers(40, 200))
def test_each_part_is_as_long_as_its_bytes(found: Footprint, cells: int) -> None:
    scale = Scale(cells=cells, full_bytes=found.upper_bytes, capacity_bytes=None)
    text = bar(found, scale, unicode=False).plain
    beyond = found.process_bytes - found.peak_live_bytes
    wanted = [
        *[(part.ascii, sum(found.peak.by_category.get(name, 0) for name in part.categories)) for part in PARTS],
        (CONTEXT.ascii, beyond),
        (BOUND.ascii, found.upper_bytes - found.process_bytes),
    ]
    for letter, nbytes in wanted:
        assert abs(text.count(letter) - nbytes * cells / found.upper_bytes) <= 1


def test_what_rounds_to_no_cell_is_there_all_the_same() -> None:
    scale = Scale(cells=40, full_bytes=320 * GIB, capacity_bytes=192 * GIB)
    small = footprint({"weights": GIB // 2, "gradients": GIB}, 2 * GIB, 2 * GIB)
    text = bar(small, scale, unicode=True)
    assert text.plain.strip(" ┃") == "▓"
    assert text.cell_len == 40
