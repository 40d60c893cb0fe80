"""Whether a workload fits a card, with how much room, and how far it could go."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from estimators.analytic.bounds import Reach
from estimators.analytic.estimate import Reaches, estimate
from estimators.footprint import Footprint
from estimators.workload import Workload, resized
from profiles.gpus import Gpu

Verdict = Literal["fits", "tight", "does-not-fit"]
MAX_MICRO_BATCH_SIZE = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One workload on one card. Sizes are bytes."""

    gpu: Gpu
    footprint: Footprint
    usable_bytes: int
    """The smallest total memory that torch was seen to report for the card, less what others use."""
    verdict: Verdict
    max_sequence_length: int
    """The longest sequence that fits at this micro-batch size, up to the positions of the model; 0 if none does."""
    max_micro_batch_size: int
    """The most sequences of this length that fit; 0 if not even one does."""

    @property
    def peak_reserved_bytes(self) -> int:
        """What the allocator holds at its peak."""
        return self.footprint.peak_reserved_bytes

    @property
    def process_bytes(self) -> int:
        """What nvidia-smi shows: reserved memory and context."""
        return self.footprint.process_bytes

    @property
    def upper_bytes(self) -> int:
        """Upper bound of the process."""
        return self.footprint.upper_bytes

    @property
    def headroom_bytes(self) -> int:
        """Room left under the upper bound; negative where there is none."""
        return self.usable_bytes - self.upper_bytes

    def to_dict(self) -> dict[str, Any]:
        """An entry of `fits` in the JSON output."""
        return {
            "gpu": self.gpu.name,
            "usable_bytes": self.usable_bytes,
            "verdict": self.verdict,
            "peak_reserved_bytes": self.peak_reserved_bytes,
            "process_bytes": self.process_bytes,
            "upper_bytes": self.upper_bytes,
            "headroom_bytes": self.headroom_bytes,
            "max_sequence_length": self.max_sequence_length,
            "max_micro_batch_size": self.max_micro_batch_size,
        }


def judge(workload: Workload, gpu: Gpu, *, other_use_bytes: int = 0) -> Fit:
    """Lay a workload's footprint against a card.

    Args:
        workload: the run.
        gpu: the card.
        other_use_bytes: what a display or other processes take of it.

    Raises:
        InputError: the workload cannot run on the card.
    """
    usable = gpu.usable_bytes - other_use_bytes
    footprint = estimate(workload, gpu)
    return Fit(
        gpu=gpu,
        footprint=footprint,
        usable_bytes=usable,
        verdict=verdict_of(footprint, usable),
        max_sequence_length=max_sequence_length(workload, gpu, usable),
        max_micro_batch_size=max_micro_batch_size(workload, gpu, usable),
    )


def verdict_of(footprint: Footprint, usable_bytes: int) -> Verdict:
    """`fits` by the upper bound, `tight` by the central figure only."""
    if footprint.upper_bytes <= usable_bytes:
        return "fits"
    return "tight" if footprint.process_bytes <= usable_bytes else "does-not-fit"


def max_sequence_length(
    workload: Workload, gpu: Gpu, usable_bytes: int, *, reaches: Reaches | None = None, near: int = 0
) -> int:
    """The longest sequence whose upper bound fits, up to the model's positions or the length asked for.

    Args:
        workload: the run.
        gpu: the card.
        usable_bytes: what it leaves.
        reaches: of the workload on the card, where they are at hand.
        near: what came out for a workload much like it, so that the search begins there.
    """
    found, batch = reaches or Reaches(workload, gpu), workload.batch
    limit = max(workload.model.max_position_embeddings, batch.sequence_length)
    return _largest(lambda length: found.of(resized(batch, sequence_length=length)), usable_bytes, limit, near)


def max_micro_batch_size(
    workload: Workload, gpu: Gpu, usable_bytes: int, *, reaches: Reaches | None = None, near: int = 0
) -> int:
    """The most sequences whose upper bound fits; arguments as those of `max_sequence_length`."""
    found, batch = reaches or Reaches(workload, gpu), workload.batch
    limit, known = MAX_MICRO_BATCH_SIZE, found.micro_batches(batch)
    return _largest(lambda size: found.of(resized(batch, micro_batch_size=size)), usable_bytes, limit, near, known)


def _largest(
    reach_at: Callable[[int], Reach], usable_bytes: int, limit: int, near: int, known: Sequence[int] = ()
) -> int:
    """The largest number in 1..limit whose upper bound fits, 0 if none does; bounds grow with it as live bytes do."""
    reach = cache(reach_at)
    return last_not_above(lambda number: reach(number).upper_bytes - usable_bytes, 1, limit, near, known)


def last_not_above(value: Callable[[int], int], low: int, high: int, near: int = 0, known: Sequence[int] = ()) -> int:
    """The last number in low..high at which a growing value is not above 0; `low - 1` if none is.

    Values are nearly linear in the number, so the search tries where a straight line between its ends would meet zero,
    then what lies beside that, which is mostly on the other side, and halves the interval where neither ends it.

    Args:
        value: grows with the number.
        low: the first number.
        high: the last one.
        near: where the answer is thought to be; 0 where nothing is known.
        known: growing numbers at which the value costs least: between which of them the answer lies is found first.
    """
    if value(low) > 0:
        return low - 1
    inside = [low, *(number for number in known if low < number < high), high]
    place = bisect_right(inside, 0, lo=1, hi=len(inside) - 1, key=value)
    low, high = inside[place - 1], inside[place]
    if low < near < high and place in (1, len(inside) - 1):
        low, high = _around(value, low, high, near)
    low_value = value(low)
    high_value = value(high)
    if high_value <= 0:
        return high
    found, turn = low_value, 0
    while high - low > 1:
        if turn == 0:
            guess = low + (high - low) * -low_value // (high_value - low_value)
            middle = min(max(guess, low + 1), high - 1)
        elif turn == 1:
            middle = low + 1 if found <= 0 else high - 1
        else:
            middle = (low + high) // 2
        turn = (turn + 1) % 3
        found = value(middle)
        if found <= 0:
            low, low_value = middle, found
        else:
            high, high_value = middle, found
    return low


def _around(value: Callable[[int], int], low: int, high: int, near: int) -> tuple[int, int]:
    """Numbers in low..high around the answer, in wider and wider steps from one that is near it."""
    step = 1
    if value(near) <= 0:
        low = near
        while low + step < high:
            if value(low + step) > 0:
                return low, low + step
            low, step = low + step, 4 * step
        return low, high
    high = near
    while high - step > low:
        if value(high - step) <= 0:
            return high - step, high
        high, step = high - step, 4 * step
    return low, high
