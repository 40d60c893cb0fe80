"""What a search found on one card: what to take, what else fits, and what just misses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

from estimators.footprint import Footprint
from estimators.pareto import front
from estimators.verdict import Fit, judge, verdict_of
from estimators.workload import METHODS
from galore_mem.answers.candidates import Option, free_size, options
from galore_mem.answers.names import Card, NamedModel
from galore_mem.answers.reasons import reasons
from galore_mem.answers.replayed import Replays
from galore_mem.answers.wishes import ENOUGH, Wishes
from profiles.errors import InputError

NEAR_MISSES = 8
MISSES = 2
"""That are replayed: the nearest."""
RUNNERS_UP = 3
"""That are replayed before none is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The configuration to take on one card."""

    option: Option
    footprint: Footprint
    fits: tuple[Fit, ...]
    """On its own card first, then on the others that were named."""
    why: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The `recommended` object of the JSON output."""
        return self.option.to_dict() | {
            "footprint": self.footprint.to_dict(),
            "fits": [fit.to_dict() for fit in self.fits],
            "why": list(self.why),
        }


class CardResult:
    """What a search found for one card.

    What to take is known at once; the rest, which is told of the best card only, when it is first asked for.

    Args:
        named: the model.
        wishes: what is asked.
        card: the card.
        cards: all that were named.

    Raises:
        InputError: nothing can run on the card as asked.
    """

    def __init__(self, named: NamedModel, wishes: Wishes, card: Card, cards: Sequence[Card]) -> None:
        self.card = card
        self._others = [other for other in cards if other != card]
        self._seen = list(options(named.shape, wishes, card))
        if not self._seen:
            raise InputError(f"no configuration can run on {card.gpu.name} as asked", "", "loosen a constraint")
        possible = sorted((option for option in self._seen if option.least_missing_bytes <= 0), key=preference(wishes))
        self._fitting = [option for option in possible if option.missing_bytes <= 0]
        self._replays = Replays(card)
        self._best = self._replays.best(possible, free_size(wishes))

    @property
    def looked_at(self) -> int:
        """Configurations that were estimated."""
        return len(self._seen)

    @property
    def option(self) -> Option | None:
        """What to take; None where nothing fits."""
        return self._best.option if self._best is not None else None

    @property
    def order(self) -> tuple[object, ...]:
        """Where the card stands among others: by what can be done on it, then by its size, smallest first."""
        if self.option is None:
            return (1, self.least_missing_bytes or 0)
        return (0, self.option.fidelity.key, round(self.option.relative_work, 1), self.card.gpu.usable_bytes)

    @property
    def least_missing_bytes(self) -> int | None:
        """By how much the nearest miss does not fit; None where none is known."""
        return min((option.missing_bytes for option in self.near_misses), default=None)

    @cached_property
    def recommended(self) -> Recommendation | None:
        """What to take, with its reasons; None where nothing fits."""
        best = self._best
        if best is None:
            return None
        option = best.option
        own = judge(option.workload, self.card.gpu, other_use_bytes=self.card.other_use_bytes)
        batch = option.workload.batch
        own = replace(
            own,
            footprint=best.footprint,
            verdict=verdict_of(best.footprint, own.usable_bytes),
            max_micro_batch_size=max(own.max_micro_batch_size, batch.micro_batch_size),
            max_sequence_length=max(own.max_sequence_length, batch.sequence_length),
        )
        others = (judge(option.workload, card.gpu, other_use_bytes=card.other_use_bytes) for card in self._others)
        alike = [other for other in self._fitting if _sort(other) == _sort(option) and other.form == option.form]
        refused = [other for other in map(self._replays.known, alike) if other.missing_bytes > 0]
        why = reasons(option, best.footprint, self.near_misses, self._fitting, refused)
        return Recommendation(option=option, footprint=best.footprint, fits=(own, *others), why=why)

    @cached_property
    def runner_up(self) -> Option | None:
        """The next best of another method, rank, update or checkpointing that holds when replayed."""
        best = self.option
        if best is None:
            return None
        others = (option for option in self._fitting if _sort(option) != _sort(best))
        found = (self._replays.of(option).option for option in islice(others, RUNNERS_UP))
        return next((option for option in found if option.missing_bytes <= 0), None)

    @cached_property
    def front(self) -> tuple[Option, ...]:
        """What fits and is beaten by nothing in memory, fidelity and work per token at once."""
        replayed = {option.workload: option for option in (self.option, self.runner_up) if option is not None}
        return front(
            [*replayed.values(), *(option for option in self._fitting if option.workload not in replayed)],
            lambda option: option.reach.upper_bytes,
            lambda option: option.fidelity.key,
            lambda option: option.relative_work,
        )

    @cached_property
    def near_misses(self) -> tuple[Option, ...]:
        """The leanest form of methods that do not fit, nearest first."""
        misses = _near_misses([*map(self._replays.known, self._seen)], self.option, self._fitting)
        found = (
            self._replays.of(option).option if place < MISSES and option.least_missing_bytes <= 0 else option
            for place, option in enumerate(misses)
        )
        return tuple(sorted(found, key=lambda option: option.told_missing_bytes))


def preference(wishes: Wishes) -> Callable[[Option], tuple[Any, ...]]:
    """The order in which options that fit are recommended.

    Every objective puts the kind of training first, and does not trade rank below the usual quarter of the width away
    while something of that rank fits; then comes what was asked for; then a tenth less work per token, an update of the
    whole model (which can be clipped), finer states, more sequences at once, fewer extras.
    """

    def key(option: Option) -> tuple[Any, ...]:
        workload = option.workload
        kind, share, states = option.fidelity.key
        asked = {
            "fidelity": 0,
            "batch": -workload.batch.micro_batch_size,
            "sequence": -workload.batch.sequence_length,
            "rank": -(workload.method.rank or 0),
        }[wishes.objective]
        if wishes.objective != "rank":
            share = max(share, -enough_share(option))
        work, by_layers = round(option.relative_work, 1), workload.method.update == "per-layer"
        batch, extras = (
            -workload.batch.micro_batch_size,
            (workload.checkpointing == "full") + (workload.loss == "chunked") + workload.gradient_as_bucket_view,
        )
        last = option.reach.upper_bytes, workload.checkpointing, workload.loss, workload.method.rank or 0
        return kind, round(share, 3), asked, work, by_layers, states, batch, extras, *last, workload.method.name

    return key


def enough_share(option: Option) -> float:
    """The share from which more rank counts no longer."""
    from estimators.fidelity import fidelity

    method, model = option.workload.method, option.workload.model
    if METHODS[method.name].parameterisation != "galore":
        return 1.0
    return fidelity(model, replace(method, rank=max(1, model.hidden_size // ENOUGH))).share


def _sort(option: Option) -> tuple[object, ...]:
    method = option.workload.method
    return method.name, method.rank, method.update, option.workload.checkpointing


def _near_misses(seen: Sequence[Option], best: Option | None, fitting: Sequence[Option]) -> tuple[Option, ...]:
    """The leanest form of each method that fits in none; only those nearer to full-rank training than what does."""
    best_kind = best.fidelity.key[0] if best is not None else 99
    fit_anyhow = {option.workload.method.name for option in (*fitting, *([best] if best else []))}
    leanest: dict[str, Option] = {}
    for option in seen:
        name = option.workload.method.name
        if option.missing_bytes > 0 and name not in fit_anyhow and option.fidelity.key[0] <= best_kind:
            known = leanest.get(name)
            if known is None or option.reach.upper_bytes < known.reach.upper_bytes:
                leanest[name] = option
    return tuple(sorted(leanest.values(), key=lambda option: option.missing_bytes)[:NEAR_MISSES])
