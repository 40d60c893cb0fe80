"""The Pareto front against its definition."""

from hypothesis import given
from hypothesis import strategies as st

from estimators.pareto import front

POINTS = st.lists(st.tuples(*[st.integers(0, 6)] * 3), max_size=40)


@given(POINTS)
def test_it_is_what_nothing_beats(points: list[tuple[int, int, int]]) -> None:
    def beaten(point: tuple[int, int, int]) -> bool:
        return any(other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in points)

    found = front(points, *(lambda point, axis=axis: point[axis] for axis in range(3)))
    assert set(found) == {point for point in points if not beaten(point)}
    assert len(found) == len(set(found))
    assert list(found) == sorted(found)


@given(POINTS)
def test_of_equal_points_the_first_stays(points: list[tuple[int, int, int]]) -> None:
    numbered = list(enumerate(points))
    found = front(numbered, *(lambda pair, axis=axis: pair[1][axis] for axis in range(3)))
    assert all(points.index(point) == number for number, point in found)
