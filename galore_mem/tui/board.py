"""What all panes show: rows in their order, the cards, and where the cursor's card is among them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from estimators.analytic.bounds import Reach
from galore_mem.answers.names import Card
from galore_mem.tui.figures import Figures, headroom_bytes, verdict_of
from galore_mem.tui.rows import SEPARATOR, Row
from galore_mem.tui.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCard:
    """A card under the name that a person gave it."""

    name: str
    card: Card

    @property
    def title(self) -> str:
        """The catalogue's name; a local card says so."""
        return f"{self.card.gpu.name} (here)" if self.name == "local" else self.card.gpu.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One moment of the screen; panes draw it and nothing else."""

    state: State
    rows: tuple[Row, ...]
    """All of them, in the order of asking."""
    shown: tuple[Row, ...]
    """After filter and sort."""
    cards: tuple[NamedCard, ...]
    index: int
    """The selected card."""
    longest_name: int
    """Characters of the longest name that is shown."""

    @property
    def card(self) -> NamedCard:
        """The card that the table judges by."""
        return self.cards[self.index]

    @property
    def marked(self) -> tuple[Row, ...]:
        """Marked rows, in the order of marking."""
        by_slot = {row.slot: row for row in self.rows}
        return tuple(by_slot[slot] for slot in self.state.marks if slot in by_slot)

    def with_cursor(self, before: str) -> "Board":
        """The same with the cursor on a row that is shown: where it was, else on the like of it, else on the first.

        Args:
            before: slot of the row that it was on.
        """
        slots = [row.slot for row in self.shown]
        if not slots or self.state.current in slots:
            return self
        like = [slot for slot in slots if slot.split(SEPARATOR)[:3] == before.split(SEPARATOR)[:3]]
        return replace(self, state=replace(self.state, current=like[-1] if like else self.first_row.slot))

    @property
    def first_row(self) -> Row:
        """Where the cursor begins: on the last row of the story, which is the paper's; else on the first."""
        return self.shown[-1] if not self.state.methods and self.state.sort == "asked" else self.shown[0]

    @property
    def baseline(self) -> Row | None:
        """The pinned row."""
        return next((row for row in self.rows if row.slot == self.state.baseline), None)

    @property
    def usable_bytes(self) -> int:
        """Of the selected card."""
        return self.card.card.gpu.usable_bytes - self.card.card.other_use_bytes


def board_of(state: State, rows: tuple[Row, ...], cards: tuple[NamedCard, ...], figures: Figures) -> Board:
    """Filter and sort."""
    index = next((place for place, card in enumerate(cards) if card.name == state.card), 0)
    shown = _sorted(_filtered(rows, state, cards[index].card, figures), state, cards[index].card, figures)
    longest = max((len(row.name) for row in shown), default=0)
    return Board(state=state, rows=rows, shown=tuple(shown), cards=cards, index=index, longest_name=longest)


def words_of(row: Row, card: Card, figures: Figures) -> str:
    """Everything that a filter looks at."""
    workload, found = row.workload, figures.reach(row, card)
    verdict = verdict_of(found, card).replace("-", " ") if isinstance(found, Reach) else ""
    traits = [workload.precision, workload.loss, workload.attention, workload.method.update, workload.model.name]
    return " ".join([row.name, row.key, verdict, *traits]).lower()


def _filtered(rows: tuple[Row, ...], state: State, card: Card, figures: Figures) -> Sequence[Row]:
    wanted = state.words.lower().split()
    if not wanted:
        return rows
    return [row for row in rows if all(word in words_of(row, card, figures) for word in wanted)]


def _sorted(rows: Sequence[Row], state: State, card: Card, figures: Figures) -> Sequence[Row]:
    if state.sort == "asked":
        return rows[::-1] if state.descending else rows
    if state.sort == "name":
        return sorted(rows, key=lambda row: row.name, reverse=state.descending)
    found: Mapping[str, int | None] = {row.key: _number(row, state, card, figures) for row in rows}
    known = [row for row in rows if found[row.key] is not None]
    unknown = [row for row in rows if found[row.key] is None]
    return sorted(known, key=lambda row: found[row.key] or 0, reverse=state.descending) + unknown


def _number(row: Row, state: State, card: Card, figures: Figures) -> int | None:
    found = figures.reach(row, card)
    if not isinstance(found, Reach):
        return None
    if state.sort == "peak":
        return found.process_bytes
    if state.sort == "headroom":
        return -headroom_bytes(found, card)
    return ("fits", "tight", "does-not-fit").index(verdict_of(found, card))
