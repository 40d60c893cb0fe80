"""A played step: births and deaths in symbols, with their borders marked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from estimators.analytic.shadow.tape import Kind, Size

Mark = tuple[int, str, str]
"""Position in the events, what happens there, and to whom."""


class Region(NamedTuple):
    """Played layers that stand for themselves several times."""

    first: int
    last: int
    times: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Played:
    """A step in symbols."""

    kinds: tuple[Kind, ...]
    events: tuple[int, ...]
    """The kind's number plus one for a birth, its negative for a death."""
    births: tuple[int, ...]
    """The position at which the storage of each event was born; none where layers are left out."""
    marks: tuple[Mark, ...]
    needs: Mapping[tuple[Size, str], tuple[str, ...]]
    """Names of the results whose backward needs a storage, by its size and name."""
    product: int
    """Position of backward's first matrix product; the number of events where it has none."""
    gradients: tuple[int, ...]
    """The position at which each gradient was born, in the order of the marks of their completion."""
    lone: tuple[int, ...] = ()
    """The events that would end each gradient when it is complete; empty where something else would still hold one."""
