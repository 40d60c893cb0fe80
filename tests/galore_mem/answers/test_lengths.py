"""Steps of different lengths: what is drawn, in which orders, what comes out, and what is refused."""

from typing import Any

import pytest

from galore_mem.answers.lengths import ORDERS, course_of
from profiles.errors import InputError


def test_lengths_are_drawn_from_a_seed() -> None:
    course = course_of("100:128", 50, 3, 256)
    assert course is not None
    assert course == course_of("100:128", 50, 3, 256)
    assert course.lengths != course_of("100:128", 50, 4, 256).lengths  # type: ignore[union-attr]
    assert len(course.lengths) == 50
    assert 100 <= min(course.lengths) < max(course.lengths) <= 128
    assert course.distribution()["longest"] == max(course.lengths)


def test_orders_hold_the_same_lengths_and_differ() -> None:
    course = course_of("128,128,120,128", None, 0, 256)
    assert course is not None
    orders = course.orders()
    assert orders[0] == (128, 128, 120, 128)
    assert len(orders) == len(set(orders)) == 4, "one short batch has four places"
    assert {tuple(sorted(order)) for order in orders} == {(120, 128, 128, 128)}
    many = course_of("1:500", 20, 0, 256)
    assert many is not None
    assert len(many.orders()) == ORDERS


@pytest.mark.parametrize(("low", "high", "multiple"), [(120, 128, 16), (100, 110, 16), (1, 2048, 2048)])
def test_padding_leaves_few_lengths(low: int, high: int, multiple: int) -> None:
    course = course_of((low, high), None, 0, 256)
    assert course is not None
    assert course.multiple == multiple


@pytest.mark.parametrize(
    ("lengths", "steps", "said"),
    [
        ("abc", None, "no range of lengths"),
        ("12:", None, "no range of lengths"),
        ("1:2:3", None, "no range of lengths"),
        ("0:9", None, "no range of lengths"),
        ("200:100", None, "give --lengths 100:200"),
        ("100,120", 3, "leave out --steps"),
        ("100:120", 0, "not a positive whole number"),
        ((3, 0), None, "below 1"),
    ],
)
def test_what_means_nothing_is_refused(lengths: Any, steps: int | None, said: str) -> None:  # noqa: ANN401
    with pytest.raises(InputError, match=said):
        course_of(lengths, steps, 0, 256)


def test_without_lengths_steps_are_alike() -> None:
    assert course_of(None, None, 0, 256) is None
    course = course_of(None, 3, 0, 256)
    assert course is not None
    assert course.lengths == (256, 256, 256)
    assert not course.varies


def test_seq_beside_lengths_is_refused() -> None:
    from galore_mem.answers.trace import trace

    with pytest.raises(InputError, match="exclude each other"):
        trace("llama-60m", seq=64, lengths="10:20")
