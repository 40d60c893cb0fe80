"""What is known of each row on each card: remembered, computed within a frame's budget, or left to a worker."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from estimators.analytic.bounds import Reach
from estimators.analytic.estimate import reach
from estimators.verdict import Fit, Verdict, judge
from galore_mem.answers.names import Card
from galore_mem.tui.rows import Row
from galore_mem.tui.saying import line_of
from profiles.errors import InputError

FRAME_SECONDS = 0.008
"""What a repaint may spend on figures; whatever is left over, a worker computes."""
BATCH_SECONDS = 0.04
"""How long a worker gathers figures before it hands them over."""
Kind = Literal["reach", "fit"]
Place = tuple[Kind, str, str]
"""Kind of figure, key of the row, key of the card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why a row cannot run on a card."""

    reason: str


Figure = Reach | Fit | Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """A figure that nobody has computed yet."""

    kind: Kind
    row: Row
    card: Card

    @property
    def place(self) -> Place:
        """Where the figure belongs."""
        return self.kind, self.row.key, card_key(self.card)


def card_key(card: Card) -> str:
    """Tells cards apart, also two of one name with different other use."""
    return f"{card.gpu.name}|{card.gpu.usable_bytes}|{card.other_use_bytes}"


def verdict_of(found: Reach | Fit, card: Card) -> Verdict:
    """As `estimators.verdict` says it of a footprint."""
    usable = card.gpu.usable_bytes - card.other_use_bytes
    if found.upper_bytes <= usable:
        return "fits"
    return "tight" if found.process_bytes <= usable else "does-not-fit"


def headroom_bytes(found: Reach | Fit, card: Card) -> int:
    """Room left under the upper bound."""
    return card.gpu.usable_bytes - card.other_use_bytes - found.upper_bytes


class Figures:
    """The memory of one session."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._known: dict[Place, Figure] = {}
        self._clock = clock
        self._deadline = 0.0
        self.wanted: dict[Place, Want] = {}
        """Asked for since the last `allow`, and not known: what is on the screen first."""
        self.asked = False
        """Whether the app was told that something is wanted."""

    def allow(self, seconds: float = FRAME_SECONDS) -> None:
        """Begin a frame."""
        self._deadline = self._clock() + seconds
        self.wanted.clear()
        self.asked = False

    def reach(self, row: Row, card: Card) -> Reach | Refused | None:
        """Totals of a row on a card; None until they are known."""
        found = self._ask(Want(kind="reach", row=row, card=card))
        return None if isinstance(found, Fit) else found

    def fit(self, row: Row, card: Card) -> Fit | Refused | None:
        """Everything of a row on a card; None until it is known."""
        found = self._ask(Want(kind="fit", row=row, card=card))
        return found if isinstance(found, Fit | Refused) else None

    def _ask(self, want: Want) -> Figure | None:
        place = want.place
        found = self._known.get(place)
        if found is None:
            if self._clock() >= self._deadline:
                self.wanted[place] = want
                return None
            found = self._known[place] = compute(want)
        return found

    def learn(self, found: Iterable[tuple[Place, Figure]]) -> None:
        """Take over what a worker computed."""
        self._known.update(found)

    def all_of(self, rows: Iterable[Row], cards: Iterable[Card]) -> list[Want]:
        """Totals that are not known, of every row on every card."""
        pairs = ((row, card) for card in cards for row in rows)
        wants = (Want(kind="reach", row=row, card=card) for row, card in pairs)
        return [want for want in wants if want.place not in self._known]


def compute(want: Want) -> Figure:
    """One figure, or why there is none."""
    if want.row.problem:
        return Refused(reason=want.row.problem)
    try:
        if want.kind == "reach":
            return reach(want.row.workload, want.card.gpu)
        return judge(want.row.workload, want.card.gpu, other_use_bytes=want.card.other_use_bytes)
    except InputError as error:
        return Refused(reason=line_of(error, "this"))


def batches(
    wants: Iterable[Want], is_stopped: Callable[[], bool], clock: Callable[[], float] = time.perf_counter
) -> Iterator[tuple[tuple[Place, Figure], ...]]:
    """Figures as a worker computes them, handed over now and then; ends when it is told to."""
    batch: list[tuple[Place, Figure]] = []
    begun = clock()
    for want in wants:
        if is_stopped():
            return
        batch.append((want.place, compute(want)))
        if clock() - begun > BATCH_SECONDS:
            yield tuple(batch)
            batch, begun = [], clock()
            time.sleep(0)
    if batch:
        yield tuple(batch)
