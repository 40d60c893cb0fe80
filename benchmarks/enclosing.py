"""The cheapest sum of shares that no row exceeds: a linear program with few unknowns and thousands of rows."""

from collections.abc import Sequence
from operator import mul

Vector = Sequence[float]
_NOTHING = 1e-12


def least_shares(rows: Sequence[Vector], wanted: Vector) -> list[float]:
    """Shares x, none below 0, with `row . x >= wanted` for every row, at the least `row . x` on average.

    The simplex method on the dual program, whose basis is as small as the rows are short: in each turn the row that is
    missed by most enters it.

    Args:
        rows: of each run what shares are taken of.
        wanted: of each run what they must reach.

    Raises:
        ValueError: no shares reach it: a row has nothing to take a share of.

    >>> least_shares([(1.0, 0.0), (1.0, 1.0), (0.0, 2.0)], (2.0, 2.5, 1.0))
    [2.0, 0.5]
    """
    width = len(rows[0])
    columns = [[float(row == column) for column in range(width)] for row in range(width)]
    profits, values = [0.0] * width, [sum(row[place] for row in rows) / len(rows) for place in range(width)]
    while True:
        shares = [
            sum(profit * column[place] for profit, column in zip(profits, columns, strict=True))
            for place in range(width)
        ]
        profit, row = max(
            ((goal - sum(map(mul, row, shares)), row) for goal, row in zip(wanted, rows, strict=True)),
            key=lambda miss: miss[0],
        )
        goal = profit + sum(map(mul, row, shares))
        least = min(range(width), key=shares.__getitem__)
        if -shares[least] > profit:  # a share below nothing is missed by more
            profit, goal, row = -shares[least], 0.0, [float(place == least) for place in range(width)]
        if profit <= _NOTHING:
            return [max(share, 0.0) for share in shares]
        into = [sum(map(mul, column, row)) for column in columns]
        ratios = [(values[place] / into[place], place) for place in range(width) if into[place] > _NOTHING]
        if not ratios:
            raise ValueError("no shares reach what is wanted: a row has nothing to take a share of")
        _, leaving = min(ratios)
        _pivot(columns, values, into, leaving)
        profits[leaving] = goal


def _pivot(columns: list[list[float]], values: list[float], into: list[float], leaving: int) -> None:
    """The basis's inverse and its values once a column has entered in place of another."""
    columns[leaving] = [entry / into[leaving] for entry in columns[leaving]]
    values[leaving] /= into[leaving]
    for place, factor in enumerate(into):
        if place != leaving and factor:
            columns[place] = [entry - factor * own for entry, own in zip(columns[place], columns[leaving], strict=True)]
            values[place] -= factor * values[leaving]
