"""What a written history is written into: blocks by numbers, and sections of it that a replay may pass over."""

from collections.abc import Iterable
from typing import NamedTuple

from estimators.allocator.passages import Passage, Section, passage_of


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

    def promise(self, sizes: Iterable[int]) -> int:
        """Number blocks that are made later; returns the number before the first of them."""
        before = len(self.sizes) - 1
        self.sizes += sizes
        return before

    def play(self, events: list[int], before: int, gone: set[int]) -> None:
        """Births and deaths of promised blocks, except of those that are gone already.

        Args:
            events: a block's number among those promised, or its negative.
            before: the number before the first of them.
            gone: blocks, by their own numbers.
        """
        if gone:
            events = [code for code in events if before - code not in gone]
        self.codes += [code + before if code > 0 else code - before for code in events]

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
        before = self.promise(recipe.sizes)
        self.codes += [code + before if code > 0 else code - before if code else -gradient for code in recipe.codes]
