"""What a search found on one card: what to take, what else fits, and what just misses."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from typing import Any

from estimators.fidelity import KINDS
from estimators.footprint import Footprint
from estimators.pareto import front
from estimators.verdict import Fit, judge, verdict_of
from galore_mem.answers.candidates import Option, free_size
from galore_mem.answers.looks import Look, Looks
from galore_mem.answers.misses import leanest_misses
from galore_mem.answers.names import Card, NamedModel
from galore_mem.answers.reasons import reasons
from galore_mem.answers.replayed import Replays
from galore_mem.answers.wishes import Wishes
from profiles.errors import InputError

RUNNERS_UP = 3
"""That are replayed before none is named."""


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The configuration to take on one card."""

    option: Option
    footprint: Footprint
    cards: tuple[Card, ...]
    """Its own first, then the others that were named."""
    why: tuple[str, ...]

    @cached_property
    def fits(self) -> tuple[Fit, ...]:
        """On each of the cards."""
        found = (judge(self.option.workload, card.gpu, other_use_bytes=card.other_use_bytes) for card in self.cards)
        own, batch = next(found), self.option.batch
        own = replace(
            own,
            footprint=self.footprint,
            verdict=verdict_of(self.footprint, own.usable_bytes),
            max_micro_batch_size=max(own.max_micro_batch_size, batch.micro_batch_size),
            max_sequence_length=max(own.max_sequence_length, batch.sequence_length),
        )
        return own, *found

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
        self._cards = cards
        self._named, self._wishes = named, wishes
        self._looks = Looks(named.shape, wishes, card)
        self._replays = Replays(card, may_expand=wishes.alloc_conf is None)
        possible = (look.possible for look in self._looks)
        free, then = free_size(wishes), free_size(replace(wishes, objective="fidelity"))
        self.option = self._replays.best(possible, free, self._looks.preference, then if then != free else None)
        """What to take; None where nothing fits."""
        if self.option is None and not self.looked_at:
            reason, *_ = [refusal.why for refusal in self._looks.refusals if refusal.why] or [""]
            raise InputError(f"no configuration can run on {card.gpu.name} as asked", reason, "loosen a constraint")

    @property
    def looked_at(self) -> int:
        """Configurations that have been estimated, as far as anything was asked for."""
        return self._looks.count

    @property
    def _fitting(self) -> Iterator[Option]:
        """What fits by the closed form's bound, the best first; kinds of training are looked at as they are reached."""
        return chain.from_iterable(map(_that_fit, self._looks))

    @cached_property
    def _as_near(self) -> list[Option]:
        """Of that, what is as near to full-rank training as what to take."""
        return [option for look in self._looks_as_near for option in _that_fit(look)]

    @property
    def _looks_as_near(self) -> Iterator[Look]:
        kind = self.option.fidelity.key[0] if self.option is not None else len(KINDS)
        for look in self._looks:
            if look.kind <= kind:
                yield look
            if look.kind >= kind:
                return

    @cached_property
    def unasked(self) -> Option | None:
        """Where nothing fits, and no method was named: adapters beside weights in four bits, if those do."""
        if self.option is not None or self._wishes.methods:
            return None
        with suppress(InputError):  # wishes that mean nothing to adapters
            wishes = replace(self._wishes, methods=("qlora",))
            return CardResult(self._named, wishes, self.card, (self.card,)).option
        return None

    @property
    def order(self) -> tuple[object, ...]:
        """Where the card stands among others: by what can be done on it, then by its size, smallest first."""
        if self.option is None:
            return (1, self.least_missing_bytes or 0)
        return (0, self.option.fidelity.key, round(self.option.relative_work, 1), self.card.gpu.usable_bytes)

    @property
    def least_missing_bytes(self) -> int | None:
        """By how much the nearest miss does not fit; None where none is known."""
        return min((option.told_missing_bytes for option in self.near_misses), default=None)

    @cached_property
    def recommended(self) -> Recommendation | None:
        """What to take, with its reasons; None where nothing fits."""
        best = self.option
        if best is None:
            return None
        footprint = self._replays.footprint(best)
        why = reasons(
            best,
            footprint,
            self.near_misses,
            self._as_near,
            self._refused(best),
            self._plain,
            self._replays.of,
            self._replays.known,
        )
        others = (card for card in self._cards if card != self.card)
        return Recommendation(option=best, footprint=footprint, cards=(self.card, *others), why=why)

    @property
    def _plain(self) -> Option | None:
        """What is recommended under the allocator's default settings, where the search chose others."""
        best = self.option
        if best is None or best.workload.allocator_settings == (self._wishes.alloc_conf or ""):
            return None
        return self._replays.under_defaults(best)

    def _refused(self, best: Option) -> list[Option]:
        """Other sizes of what is recommended, that fit by the closed form's bound, and do not when replayed."""
        steps = best.batch.gradient_accumulation_steps
        alike = (
            self._replays.known(option)
            for option in self._as_near
            if option.form is best.form and option.batch.gradient_accumulation_steps == steps
        )
        return [option for option in alike if option.missing_bytes > 0]

    @cached_property
    def runner_up(self) -> Option | None:
        """The next best of another method, rank, update or checkpointing that holds, replayed where that says more."""
        best = self.option
        if best is None:
            return None
        others = (option for option in self._fitting if _sort(option) != _sort(best))
        replays = self._replays
        found = (
            replays.either(option) if replays.may_help(option) else option for option in islice(others, RUNNERS_UP)
        )
        return next((option for option in found if option.missing_bytes <= 0), None)

    @cached_property
    def front(self) -> tuple[Option, ...]:
        """What fits and is beaten by nothing in memory, fidelity and work per token at once."""
        return self._front_of(list(self._fitting))

    def nearest_of_front(self, groups: int) -> tuple[Option, ...]:
        """The front's beginning, nearest to full-rank training: so many methods with rank and update, or more.

        Of kinds that are further from it nothing can beat these, and none is looked at that is not needed.
        """
        fitting: list[Option] = []
        for look in self._looks:
            fitting += _that_fit(look)
            found = self._front_of(fitting)
            if len({option.form.group for option in found if option.fidelity.key[0] <= look.kind}) >= groups:
                return found
        return self.front

    def _front_of(self, fitting: Sequence[Option]) -> tuple[Option, ...]:
        replayed = {option.key: option for option in (self.option, self.runner_up) if option is not None}
        return front(
            [*replayed.values(), *(option for option in fitting if option.key not in replayed)],
            lambda option: option.reach.upper_bytes,
            lambda option: option.fidelity.key,
            lambda option: option.relative_work,
        )

    @cached_property
    def near_misses(self) -> tuple[Option, ...]:
        """The leanest form of methods that do not fit and are as near to full-rank as what does, nearest first."""
        best = self.option
        fit_anyhow = {option.form.workload.method.name for option in (*self._as_near, *([best] if best else []))}
        return leanest_misses(self._looks_as_near, fit_anyhow, self._replays, names_leanest=best is None)


def _that_fit(look: Look) -> list[Option]:
    return [option for option in look.possible if option.missing_bytes <= 0]


def _sort(option: Option) -> tuple[object, ...]:
    return option.form.group, option.form.workload.checkpointing
