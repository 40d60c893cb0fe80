"""Options held against the allocator's replica: the best that stays within a card when its history is replayed.

The closed form's bound allows for the worst fragmentation that runs of a kind ever showed, which is mostly too much
and, for kinds that no one has traced, may be too little. Replaying a run's written history says what it reserves.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from estimators.analytic.bounds import Reach
from estimators.analytic.estimate import estimate
from estimators.footprint import Footprint
from estimators.verdict import MAX_MICRO_BATCH_SIZE, last_not_above
from estimators.workload import Batch, in_batch, resized
from galore_mem.answers.candidates import Option
from galore_mem.answers.exact import confirmed, is_compared
from galore_mem.answers.names import Card
from profiles.errors import InputError

Size = Literal["micro_batch_size", "sequence_length"]
Free = Size | None
"""What of a batch may be chosen."""
TRIES = 5
"""Sizes of one configuration that are replayed before the largest of those that held is taken."""
SPARED = 0.5
"""Of the fragmentation that the closed form's bound allows for: what is thought to be spared before a replay tells."""
REFUSALS = 4
"""Methods whose leanest form the replica refuses, before only what fits by the closed form is replayed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """An option with its footprint."""

    option: Option
    footprint: Footprint


class Replays:
    """Replays on one card, each made once."""

    def __init__(self, card: Card) -> None:
        self._gpu = card.gpu
        self._known: dict[tuple[object, ...], Replayed] = {}

    def of(self, option: Option) -> Replayed:
        """The option by its replay; by the closed form where it has no written history."""
        found = self._known.get(option.key)
        if found is None:
            footprint = estimate(option.workload, self._gpu)
            try:
                footprint = confirmed(option.workload, footprint, self._gpu)
                option = replace(option, reach=_reach_of(footprint), is_replayed=True)
            except InputError:
                pass
            found = self._known[option.key] = Replayed(option=option, footprint=footprint)
        return found

    def known(self, option: Option) -> Option:
        """The option by its replay if that was made."""
        found = self._known.get(option.key)
        return found.option if found is not None else option

    def may_help(self, option: Option) -> bool:
        """Whether a replay could say less than the closed form's bound, which stands for kinds never compared."""
        return is_compared(option.workload, self._gpu)

    def best(self, kinds: Iterable[Sequence[Option]], free: Free) -> Replayed | None:
        """The first option that holds; as large as it can be.

        Args:
            kinds: what could fit if nothing were lost between blocks, in the order of preference; options of one group
                lie in one of them.
            free: what of the batch may be chosen.
        """
        refused: set[tuple[object, ...]] = set()
        tried: set[tuple[object, ...]] = set()
        for options in kinds:
            for option in options:
                group, size = option.form.group, (option.form, _sized(option.batch, free, 1))
                if group in refused or size in tried:
                    continue
                tried.add(size)
                if option.missing_bytes > 0:
                    if len(refused) == REFUSALS or not self.may_help(option):
                        continue
                    leanest = min((other for other in options if other.form.group == group), key=_upper)
                    if self.of(leanest).option.missing_bytes > 0:
                        refused.add(group)
                        continue
                found = self.largest(option, free)
                if found is None and option.missing_bytes > 0 and option.form is leanest.form:
                    found = self.of(leanest)  # its segments waste less than the closed form allows for
                if found is not None:
                    return found
        return None

    def largest(self, option: Option, free: Free) -> Replayed | None:
        """The option, with as much of what is free as holds; None where nothing that was tried does."""
        if free is None:
            found = self.of(option)
            return found if found.option.missing_bytes <= 0 else None
        sizes, low, tries = _Sizes(option, free), 0, 0
        high = sizes.most(1, sizes.limit, lambda _: 1.0)
        number = max(sizes.most(1, high, lambda _: SPARED), 1) if high else 0
        best: Replayed | None = None
        held, refused = list[tuple[int, float]](), list[tuple[int, float]]()
        while low < high and (best is None or tries < TRIES):
            found, tries = self.of(sizes.option(number)), tries + 1
            spared = number, sizes.spared(number, found.option)
            if found.option.missing_bytes <= 0:
                best, low, held = found, number, [spared]
            else:
                high, refused = number - 1, [spared]
            if low < high:
                number = min(max(sizes.most(low + 1, high, _line(*held, *refused)), low + 1), high)
        return best


class _Sizes:
    """One configuration with more and more of what is free: what the closed form says of it."""

    def __init__(self, option: Option, free: Size) -> None:
        self._form = option.form
        self._batch = option.batch
        self._free = free
        longest = max(option.form.workload.model.max_position_embeddings, option.batch.sequence_length)
        self.limit = MAX_MICRO_BATCH_SIZE if free == "micro_batch_size" else longest

    def option(self, number: int) -> Option:
        """The option of a size."""
        return self._form.option(_sized(self._batch, self._free, number))

    def most(self, low: int, high: int, spared: Callable[[int], float]) -> int:
        """The largest size in low..high that fits if of its bound's fragmentation so much is not there; or low - 1.

        Args:
            low: the least.
            high: the most.
            spared: that share by size; of kinds that were not compared with traces replays spare nothing.
        """
        form = self._form

        def excess(number: int) -> int:
            batch = _sized(self._batch, self._free, number)
            found = form.reaches.of(batch)
            share = min(spared(number), float(is_compared(in_batch(form.workload, batch), form.card.gpu)))
            return found.upper_bytes - form.usable_bytes - int(share * found.fragmentation_bytes)

        return last_not_above(excess, low, high)

    def spared(self, number: int, replayed: Option) -> float:
        """The share of the bound's fragmentation that a replay has not shown."""
        bound = self._form.reaches.of(_sized(self._batch, self._free, number))
        return (bound.upper_bytes - replayed.reach.upper_bytes) / bound.fragmentation_bytes


def _line(*known: tuple[int, float]) -> Callable[[int], float]:
    """The straight line through what is known of one or two sizes."""
    (number, share), (other, its_share) = known[0], known[-1]
    slope = (its_share - share) / (other - number) if other != number else 0.0
    return lambda size: share + slope * (size - number)


def _sized(batch: Batch, free: Free, number: int) -> Batch:
    return batch if free is None else resized(batch, **{free: number})


def _upper(option: Option) -> int:
    return option.reach.upper_bytes


def _reach_of(footprint: Footprint) -> Reach:
    beyond = next(term for term in footprint.terms if term.name == "blocks and segments")
    return Reach(
        live_bytes=footprint.peak_live_bytes,
        reserved_bytes=footprint.peak_reserved_bytes,
        process_bytes=footprint.process_bytes,
        upper_bytes=footprint.upper_bytes,
        fragmentation_bytes=beyond.high_bytes - beyond.low_bytes,
    )
