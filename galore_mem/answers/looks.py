"""What a search has looked at on one card, one kind of training after another, as far as it was asked."""

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from estimators.fidelity import kind_of
from galore_mem.answers.candidates import Candidates, Option
from galore_mem.answers.names import Card
from galore_mem.answers.preference import preference
from galore_mem.answers.wishes import Wishes
from profiles.shapes import ModelShape


class Look(NamedTuple):
    """Every configuration of one kind of training."""

    kind: int
    """Place among `estimators.fidelity.KINDS`."""
    seen: list[Option]
    possible: list[Option]
    """Those that would fit if nothing were lost between blocks, in the order of preference."""


class Looks:
    """The kinds of training that are asked for, nearest to full-rank AdamW first; each is looked at when it is reached.

    Every preference begins with the kind, so who only wants the best option need not reach the others.

    Args:
        model: what is trained.
        wishes: what is asked.
        card: what it is trained on.
    """

    def __init__(self, model: ModelShape, wishes: Wishes, card: Card) -> None:
        self._candidates = Candidates(model, wishes, card)
        self.preference = preference(wishes)
        """The order of what fits."""
        self.refusals = self._candidates.refusals
        """Why configurations cannot run on the card."""
        methods = sorted(wishes.methods_asked, key=kind_of)
        self._left = [(kind, tuple(names)) for kind, names in groupby(methods, kind_of)]
        self._looks: list[Look] = []

    def __iter__(self) -> Iterator[Look]:
        """Each kind, those of before at once."""
        place = 0
        while place < len(self._looks) or self._left:
            if place == len(self._looks):
                self._looks.append(self._look(*self._left.pop(0)))
            yield self._looks[place]
            place += 1

    @property
    def count(self) -> int:
        """Configurations that have been looked at."""
        return sum(len(look.seen) for look in self._looks)

    def _look(self, kind: int, methods: tuple[str, ...]) -> Look:
        seen = list(self._candidates.of(methods))
        possible = (option for option in seen if option.least_missing_bytes <= 0)
        return Look(kind, seen, sorted(possible, key=self.preference))
