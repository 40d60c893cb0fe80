"""What a written history is written into: blocks by numbers, and sections of it that a replay may pass over."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from estimators.allocator.passages import Passage, Section, passage_of

_FEW = 3
"""Blocks that are looked for one by one."""


class Recipe(NamedTuple):
    """What stepping a parameter does, its blocks numbered from 1 on."""

    codes: list[int]
    """As in a ledger; 0 frees the parameter's gradient."""
    sizes: list[int]
    passage: Passage
    """What of it matters for what follows."""


class Ledger:
    """Allocations and frees in order."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        """A block's number for an allocation, its negative for a free, 0 where the cache is emptied."""
        self.sizes = [0]
        """Bytes asked for, by the block's number; there is no block 0."""
        self.sections: list[Section] = []
        """In order."""

    def alloc(self, nbytes: int) -> int:
        """A new block; returns its number."""
        number = len(self.sizes)
        self.sizes.append(nbytes)
        self.codes.append(number)
        return number

    def free(self, number: int) -> None:
        """A block is given back."""
        self.codes.append(-number)

    def empty_cache(self) -> None:
        """Cached memory is returned."""
        self.codes.append(0)

    def promise(self, sizes: Iterable[int]) -> "Promised":
        """Number blocks that are made later."""
        before = len(self.sizes) - 1
        self.sizes += sizes
        return Promised(self, before)

    def since(self, code: int, number: int, gradient: int) -> Recipe:
        """What was written after so many codes and blocks, to be written again for other gradients; it is a section."""
        codes = [0 if made == -gradient else made - number if made > 0 else made + number for made in self.codes[code:]]
        sizes = self.sizes[number + 1 :]
        passage = passage_of(tuple(codes), tuple(sizes))
        self.sections.append(Section(code, passage))
        return Recipe(codes, sizes, passage)

    def repeat(self, recipe: Recipe, gradient: int) -> None:
        """The same with new blocks, on another gradient."""
        self.sections.append(Section(len(self.codes), recipe.passage))
        before = len(self.sizes) - 1
        self.sizes += recipe.sizes
        self.codes += [code + before if code > 0 else code - before if code else -gradient for code in recipe.codes]


class Promised:
    """Blocks that are made later, numbered from 1 on among themselves."""

    def __init__(self, ledger: Ledger, before: int) -> None:
        self._ledger = ledger
        self.before = before
        """The number in the ledger before that of the first."""
        self._lost = set[int]()

    def lose(self, block: int) -> None:
        """A block has died otherwise, or lives longer: its death is not written when it comes."""
        self._lost.add(block)

    def play(self, events: Sequence[int]) -> None:
        """Births and deaths of blocks by their own numbers, and the negatives of those."""
        lost, before = self._lost, self.before
        if lost and (len(lost) > _FEW or any(-block in events for block in lost)):
            written = [code for code in events if -code not in lost]
            if len(written) < len(events):
                lost.difference_update([-code for code in events])
            events = written
        self._ledger.codes += [code + before if code > 0 else code - before for code in events]
