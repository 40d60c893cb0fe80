"""Recorded steps put together anew, in any order: what a run of steps of other lengths would have recorded.

A step is a piece of a recording. Storages that outlive it (weights, states, the gradients of whole updates) hang over
its border, and a later piece frees them. Where the storages that hang over are the same whatever the step before was,
pieces fit together in any order; where they are not, `Unspliceable` says which storage differs.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from galore_mem.profiler.recording import Life, Recording

Trait = tuple[str, str, str, int]
"""(category, module, operator, bytes) of a storage that hangs over a border."""
Place = tuple[int, int]
"""Events and borders so far."""
Change = tuple[int, int]
"""(slot, sign): a piece's slots are first what hangs over from before, then what is born in it."""


class Unspliceable(Exception):  # noqa: N818
    """What outlives one step is not what the next one begins with.

    Args:
        before: storages that hang over from the step before and are not expected.
        after: storages that are expected and are not there.
    """

    def __init__(self, before: Sequence[Trait], after: Sequence[Trait]) -> None:
        self.before, self.after = before, after
        super().__init__("steps do not fit together")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One step of a recording."""

    incoming: tuple[Trait, ...]
    """What hangs over from before, in order of trait."""
    born: tuple[Life, ...]
    changes: tuple[Change, ...]
    borders: tuple[tuple[int, str, str], ...]
    """As in a Recording, with positions from the start of the piece."""
    outgoing: tuple[int, ...]
    """Slots that hang over into the next step, in order of trait."""
    outgoing_traits: tuple[Trait, ...]


def place(recording: Recording) -> Place:
    """How far a recording has come."""
    return len(recording.events), len(recording.borders)


def cut(recording: Recording, ends: Sequence[Place]) -> list[Piece]:
    """The pieces of a recording that end at these places; the first begins with it."""
    alive: dict[int, None] = {}
    starts = [(0, 0), *ends[:-1]]
    return [_piece(recording, start, end, alive) for start, end in zip(starts, ends, strict=True)]


def _follow(alive: dict[int, None], code: int) -> None:
    if code > 0:
        alive[code - 1] = None
    else:
        del alive[-code - 1]


def _piece(recording: Recording, first: Place, last: Place, alive: dict[int, None]) -> Piece:
    """The piece between two places; moves `alive` from the first to the second."""
    start, end = first[0], last[0]
    lives = recording.lives
    incoming = _in_order(lives, alive)
    slots = {number: slot for slot, number in enumerate(incoming)}
    born: list[Life] = []
    changes: list[Change] = []
    for code in recording.events[start:end]:
        number = abs(code) - 1
        if code > 0:
            slots[number] = len(incoming) + len(born)
            born.append(lives[number])
        changes.append((slots[number], 1 if code > 0 else -1))
        _follow(alive, code)
    outgoing = _in_order(lives, alive)
    borders = recording.borders[first[1] : last[1]]
    return Piece(
        incoming=tuple(trait_of(lives[number]) for number in incoming),
        born=tuple(born),
        changes=tuple(changes),
        borders=tuple((at - start, iteration, window) for at, iteration, window in borders),
        outgoing=tuple(slots[number] for number in outgoing),
        outgoing_traits=tuple(trait_of(lives[number]) for number in outgoing),
    )


def trait_of(life: Life) -> Trait:
    """What a storage is known by across borders."""
    return (life.category, life.module, life.operator, life.nbytes)


def _in_order(lives: Sequence[Life], alive: dict[int, None]) -> list[int]:
    """Living storages by trait; of equal ones, the older first."""
    return sorted(alive, key=lambda number: trait_of(lives[number]))


def splice(pieces: Sequence[Piece]) -> Recording:
    """The recording of these steps one after another.

    Raises:
        Unspliceable: what outlives a piece is not what the next begins with.
    """
    spliced = Recording()
    hanging: list[int] = []
    events = spliced.events
    for before, piece in zip([None, *pieces[:-1]], pieces, strict=True):
        left = before.outgoing_traits if before is not None else ()
        if left != piece.incoming:
            raise Unspliceable(_minus(left, piece.incoming), _minus(piece.incoming, left))
        start, first = len(events), len(spliced.lives)
        spliced.lives.extend(piece.born)
        codes = [*hanging, *range(first + 1, first + 1 + len(piece.born))]
        events.extend(sign * codes[slot] for slot, sign in piece.changes)
        spliced.borders.extend((start + at, iteration, window) for at, iteration, window in piece.borders)
        hanging = [codes[slot] for slot in piece.outgoing]
    return spliced


def _minus(left: Sequence[Trait], right: Sequence[Trait]) -> list[Trait]:
    return list((Counter(left) - Counter(right)).elements())
