"""One configuration in batch after batch: the sizes that its closed form lets fit, if so much of it is not lost."""

from collections.abc import Callable
from typing import Literal

from estimators.verdict import MAX_MICRO_BATCH_SIZE, last_not_above
from estimators.workload import Batch, in_batch, resized
from galore_mem.answers.candidates import Option
from galore_mem.answers.exact import is_compared
from galore_mem.answers.round_lengths import least_length, round_length, step_of

Size = Literal["micro_batch_size", "sequence_length"]
Free = Size | None
"""What of a batch may be chosen."""


class Sizes:
    """One configuration with more and more of what is free: what the closed form says of it."""

    def __init__(self, option: Option, free: Size) -> None:
        self._form = option.form
        self._batch = option.batch
        self._free = free
        longest = max(option.form.workload.model.max_position_embeddings, option.batch.sequence_length)
        self.limit = MAX_MICRO_BATCH_SIZE if free == "micro_batch_size" else longest
        self.least = 1 if free == "micro_batch_size" else least_length(option.form.workload.model)
        """The smallest size that is worth a try."""

    @property
    def smallest(self) -> Option:
        """The option of the smallest size."""
        return self.option(self.least)

    def down(self, number: int) -> int:
        """The largest size up to a number that is worth a try."""
        return number if self._free == "micro_batch_size" or number >= self.limit else round_length(number)

    def up(self, number: int) -> int:
        """The smallest one from a number on."""
        found = self.down(number)
        return found if found == number else min(found + step_of(number), self.limit)

    def option(self, number: int) -> Option:
        """The option of a size."""
        return self._form.option(sized(self._batch, self._free, number))

    def most(self, low: int, high: int, spared: Callable[[int], float], near: int = 0) -> int:
        """The largest size in low..high that fits if so much of what its bound allows to be lost is not; or low - 1.

        Args:
            low: the least.
            high: the most.
            spared: that share by size; of kinds that were not compared with traces replays spare nothing.
            near: where the answer is thought to be.
        """
        form = self._form

        def excess(number: int) -> int:
            batch = sized(self._batch, self._free, number)
            found = form.reaches.of(batch)
            share = min(spared(number), float(is_compared(in_batch(form.workload, batch), form.card.gpu)))
            return found.upper_bytes - form.usable_bytes - int(share * found.loss_bytes)

        return last_not_above(excess, low, high, near)

    def spared(self, number: int, replayed: Option) -> float:
        """The share of what the bound allows to be lost that a replay has not shown."""
        bound = self._form.reaches.of(sized(self._batch, self._free, number))
        return (bound.upper_bytes - replayed.reach.upper_bytes) / bound.loss_bytes


def line(*known: tuple[int, float]) -> Callable[[int], float]:
    """The straight line through what is known of one or two sizes."""
    (number, share), (other, its_share) = known[0], known[-1]
    slope = (its_share - share) / (other - number) if other != number else 0.0
    return lambda size: share + slope * (size - number)


def sized(batch: Batch, free: Free, number: int) -> Batch:
    """The batch with so much of what is free; as it is where nothing is."""
    return batch if free is None else resized(batch, **{free: number})
