"""The points of which no other is at least as good in every respect."""

from collections.abc import Callable, Iterable, Sequence
from operator import le
from typing import Any, TypeVar

T = TypeVar("T")


def front(points: Iterable[T], *costs: Callable[[T], object]) -> tuple[T, ...]:
    """The points that no other one beats, in the order of the first cost.

    One point beats another if no cost of it is higher and one is lower; of points equal in every cost the first stays.

    Args:
        points: anything.
        costs: what should be small; values of one cost are comparable with each other.
    """
    ordered: Sequence[tuple[tuple[Any, ...], T]] = sorted(
        ((tuple(cost(point) for cost in costs), point) for point in points),
        key=lambda pair: pair[0],
    )
    kept: list[T] = []
    beaters: list[tuple[Any, ...]] = []
    """Costs of what is kept, those that beat a point last in front: neighbours are mostly beaten by the same one."""
    for values, point in ordered:
        # Sorted by the first cost, so only points kept before can beat this one.
        place = next((place for place, other in enumerate(beaters) if all(map(le, other, values))), None)
        if place is None:
            kept.append(point)
            place = len(beaters)
            beaters.append(values)
        beaters.insert(0, beaters.pop(place))
    return tuple(kept)
