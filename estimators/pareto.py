"""The points of which no other is at least as good in every respect."""

from bisect import bisect_right
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any, TypeVar

T = TypeVar("T")


def front(
    points: Iterable[T], first: Callable[[T], Any], second: Callable[[T], Any], third: Callable[[T], Any]
) -> tuple[T, ...]:
    """The points that no other one beats, in the order of the first cost.

    One point beats another if no cost of it is higher and one is lower; of points equal in every cost the first stays.

    Args:
        points: anything.
        first: what should be small, as is each of the others; values of one cost are comparable with each other.
        second: another.
        third: another.
    """
    ordered = sorted(((first(point), second(point), third(point), point) for point in points), key=itemgetter(0, 1, 2))
    kept: list[T] = []
    seconds: list[Any] = []
    """Of the points that were kept, without those that another one undercuts in both other costs: growing."""
    thirds: list[Any] = []
    """Beside them: falling."""
    for _, middle, last, point in ordered:
        # Sorted by the first cost, so only points kept before can beat this one; the next below it has the least third.
        place = bisect_right(seconds, middle)
        if place and thirds[place - 1] <= last:
            continue
        kept.append(point)
        start = place - (place > 0 and seconds[place - 1] == middle)
        stop = place
        while stop < len(thirds) and thirds[stop] >= last:
            stop += 1
        seconds[start:stop] = [middle]
        thirds[start:stop] = [last]
    return tuple(kept)
