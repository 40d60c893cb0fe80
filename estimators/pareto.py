"""The points of which no other is at least as good in every respect."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def front(points: Iterable[T], *costs: Callable[[T], object]) -> tuple[T, ...]:
    """The points that no other one beats, in the order of the first cost.

    One point beats another if no cost of it is higher and one is lower; of points equal in every cost the first stays.

    Args:
        points: anything.
        costs: what should be small; values of one cost are comparable with each other.
    """
    ordered: Sequence[tuple[tuple[object, ...], T]] = sorted(
        ((tuple(cost(point) for cost in costs), point) for point in points),
        key=lambda pair: pair[0],
    )
    kept: list[tuple[tuple[object, ...], T]] = []
    for values, point in ordered:
        # Sorted by the first cost, so only points kept before can beat this one.
        if not any(all(a <= b for a, b in zip(other, values, strict=True)) for other, _ in kept):  # type: ignore[operator]
            kept.append((values, point))
    return tuple(point for _, point in kept)
