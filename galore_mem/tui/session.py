"""From states to boards: models and cards are resolved once, figures are remembered, nothing here draws."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from galore_mem.answers.names import Card, NamedModel, resolve_cards, resolve_model
from galore_mem.answers.sizes import size_bytes
from galore_mem.errors import GaloreMemError
from galore_mem.tui.board import Board, NamedCard, board_of
from galore_mem.tui.figures import Figures
from galore_mem.tui.rows import Row, rows_of
from galore_mem.tui.saying import line_of
from galore_mem.tui.state import FIRST_CARDS, FIRST_MODEL, State
from profiles.errors import InputError
from profiles.models import find_model

if TYPE_CHECKING:
    from galore_mem.tui.explain import Explained

LOCAL = "local"


def read_local() -> tuple[Card, ...]:
    """The cards of this machine, with what others use of them now.

    Raises:
        NoDeviceError: none can be used.
    """
    return resolve_cards((LOCAL,))


class Session:
    """What one person's exploration has found out so far."""

    def __init__(
        self,
        *,
        resolve: Callable[[str], NamedModel] = resolve_model,
        local: Callable[[], tuple[Card, ...]] = read_local,
        find: Callable[[str], Card] = lambda name: resolve_cards((name,))[0],
    ) -> None:
        self.figures = Figures()
        self.read_local = local
        self.explained: dict[tuple[str, str], Explained] = {}
        """By row and card."""
        self._resolve = resolve
        self._find = find
        self._models: dict[str, NamedModel] = {}
        self._cards: dict[str, Card] = {}
        self._local: tuple[Card, ...] = ()
        self._rows: tuple[tuple[object, ...], tuple[Row, ...]] = ((), ())

    def knows(self, model: str) -> bool:
        """Whether a model was resolved before."""
        return model in self._models

    def learn_model(self, model: str) -> None:
        """Resolve a model and remember it; may read a file or ask the network.

        Raises:
            InputError, GaloreMemError: no such model.
        """
        if model not in self._models:
            self._models[model] = self._resolve(model)

    def learn_card(self, name: str) -> None:
        """Look a card up and remember it.

        Raises:
            InputError: no such card.
        """
        if name != LOCAL and name not in self._cards:
            self._cards[name] = self._find(name)

    def learn_local(self, cards: tuple[Card, ...]) -> bool:
        """Take over a reading of this machine's cards; True where it says anything new."""
        is_new = cards != self._local
        self._local = cards
        return is_new

    def board(self, state: State) -> Board:
        """What to show.

        Raises:
            InputError: an unknown card, or too many rows.
        """
        for model in state.models:
            self.learn_model(model)
        key = (state.models, state.methods, state.settings)
        if self._rows[0] != key:
            self._rows = (key, rows_of(state, self._models))
        return board_of(state, self._rows[1], self._named_cards(state), self.figures)

    def _named_cards(self, state: State) -> tuple[NamedCard, ...]:
        others = size_bytes(state.other_use, "others use") if state.other_use else None
        found: list[NamedCard] = []
        for name in state.gpus:
            self.learn_card(name)
            cards = self._local if name == LOCAL else (self._cards[name],)
            found += [NamedCard(name=name, card=_used(card, others)) for card in cards]
        unique = tuple(dict.fromkeys(found))
        if not unique:
            self.learn_card(FIRST_CARDS[0])
            unique = tuple(NamedCard(name=name, card=_used(self._card(name), others)) for name in FIRST_CARDS)
        return unique

    def _card(self, name: str) -> Card:
        self.learn_card(name)
        return self._cards[name]

    def usable(self, state: State) -> tuple[State, tuple[str, ...]]:
        """The state without what cannot be found, and one line for each thing left out."""
        models, model_problems = _kept(state.models, self.learn_model)
        gpus, gpu_problems = _kept(state.gpus, self.learn_card)
        return (
            replace(state, models=models or (FIRST_MODEL,), gpus=gpus or FIRST_CARDS),
            (*model_problems, *gpu_problems),
        )


def may_ask_the_network(model: str) -> bool:
    """Whether a model's name leads to the Hub: it is no path and not in the catalogue."""
    if "/" not in model or model.startswith((".", "~", os.sep)) or model.endswith(".json") or os.path.exists(model):
        return False
    try:
        find_model(model)
    except InputError:
        return True
    return False


def _used(card: Card, others: int | None) -> Card:
    return card if others is None else replace(card, other_use_bytes=others)


def _kept(names: Sequence[str], learn: Callable[[str], None]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    kept: list[str] = []
    problems: list[str] = []
    for name in names:
        try:
            learn(name)
            kept.append(name)
        except (InputError, GaloreMemError) as error:
            problems.append(line_of(error, name))
    return tuple(kept), tuple(problems)
