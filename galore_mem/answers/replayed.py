"""Options held against the allocator's replica: the best that stays within a card when its history is replayed.

The closed form's bound allows for the worst fragmentation that runs of a kind ever showed, which is mostly too much
and, for kinds that no one has traced, may be too little. Replaying a run's written history says what it reserves.
"""

from collections.abc import Iterable, Sequence
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
                    if len(refused) == REFUSALS:
                        continue
                    leanest = min((other for other in options if other.form.group == group), key=_upper)
                    if self.of(leanest).option.missing_bytes > 0:
                        refused.add(group)
                        continue
                found = self.largest(option, free)
                if found is not None:
                    return found
        return None

    def largest(self, option: Option, free: Free) -> Replayed | None:
        """The option, with as much of what is free as holds; None where nothing that was tried does."""
        if free is None:
            found = self.of(option)
            return found if found.option.missing_bytes <= 0 else None
        best: Replayed | None = None
        low, high, tries = 0, self._most(option, free), 0
        number = high
        while number > low and (best is None or tries < TRIES):
            found, tries = self.of(option.form.option(_sized(option.batch, free, number))), tries + 1
            slack = -found.option.missing_bytes
            if slack >= 0:
                best, low = found, number
            else:
                high = number - 1
            number = min(max(number + slack // _growth(option, free, number), low + 1), high)
        return best

    def _most(self, option: Option, free: Size) -> int:
        """The largest number that could fit if nothing were lost between blocks, where a replay may say so."""
        form, gpu, batch = option.form, self._gpu, option.batch

        def excess(number: int) -> int:
            sized = _sized(batch, free, number)
            found = form.reaches.of(sized)
            compared = is_compared(in_batch(form.workload, sized), gpu)
            return found.upper_bytes - compared * found.fragmentation_bytes - form.usable_bytes

        longest = max(form.workload.model.max_position_embeddings, batch.sequence_length)
        return last_not_above(excess, 1, MAX_MICRO_BATCH_SIZE if free == "micro_batch_size" else longest)


def _growth(option: Option, free: Size, number: int) -> int:
    """Live bytes that one more takes."""
    half = max(1, number // 2)
    more, less = (option.form.reaches.of(_sized(option.batch, free, size)).live_bytes for size in (number + 1, half))
    return max(1, (more - less) // (number + 1 - half))


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
