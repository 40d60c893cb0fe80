"""What a recorder saw: the lives of storages, in order, with the windows of the step they fall into."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

from galore_mem.witness import EMPTY_CACHE, HOST

ALIGNMENT_BYTES = 512
"""The CUDA caching allocator rounds every request up to this (c10/cuda/CUDACachingAllocator.cpp, kMinBlockSize)."""

PHASES: dict[str, str] = {
    "between": "between",
    "broadcast": "between",
    "forward_end": "forward",
    "loss": "loss",
    "backward_start": "backward",
    "backward_end": "backward",
    "layer_update": "step",
    "clip": "step",
    "step": "step",
    "refresh": "refresh",
    "evaluation": "forward",
    EMPTY_CACHE: "between",
}
"""Windows of a step, each named after the moment that its largest value is, with the phase it belongs to."""


def rounded(nbytes: int) -> int:
    """Bytes that the allocator counts for a storage."""
    return -(-nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


@dataclass(slots=True, kw_only=True)
class Life:
    """One storage."""

    nbytes: int
    """As requested, not rounded."""
    operator: str
    """What made it, as torch calls it; `model` for what was there before."""
    module: str
    """Path of the module in whose forward, or whose forward's backward, it was made; may be empty."""
    category: str


@dataclass(slots=True)
class Recording:
    """Births and deaths in order."""

    lives: list[Life] = field(default_factory=list)
    events: "array[int]" = field(default_factory=lambda: array("q"))
    """The number of a life plus one for its birth, the negative of that for its death."""
    borders: list[tuple[int, str, str]] = field(default_factory=list)
    """(position in `events`, iteration, window) wherever a window begins."""

    def stretches(self) -> Iterator[tuple[int, int, str, str]]:
        """(first event, end, iteration, window) from border to border; the first stretch precedes all borders."""
        begin, iteration, window = 0, "", "between"
        for position, next_iteration, next_window in self.borders:
            yield begin, position, iteration, window
            begin, iteration, window = position, next_iteration, next_window
        yield begin, len(self.events), iteration, window


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The largest live value of one window in one iteration."""

    iteration: str
    window: str
    position: int
    """Events that have happened."""
    live_bytes: int
    by_category: dict[str, int]


def peaks_of(recording: Recording) -> list[Peak]:
    """The peak of every window and iteration, each storage rounded up to 512 B; host storages left out.

    A window's first value is what lives when it begins.
    """
    sizes = [0 if life.category == HOST else rounded(life.nbytes) for life in recording.lives]
    best: dict[tuple[str, str], tuple[int, int]] = {}
    total = 0
    for begin, end, iteration, window in recording.stretches():
        largest, position = best.get((iteration, window), (-1, 0))
        if total > largest and iteration:
            largest, position = total, begin
        for place, code in enumerate(recording.events[begin:end], begin + 1):
            if code > 0:
                total += sizes[code - 1]
                if total > largest:
                    largest, position = total, place
            else:
                total -= sizes[-code - 1]
        if largest >= 0 and window != EMPTY_CACHE:
            best[iteration, window] = (largest, position)
    held = _categories_at(recording, sizes, sorted({position for _, position in best.values()}))
    return [
        Peak(iteration=iteration, window=window, position=position, live_bytes=largest, by_category=held[position])
        for (iteration, window), (largest, position) in best.items()
    ]


def _categories_at(recording: Recording, sizes: list[int], positions: list[int]) -> dict[int, dict[str, int]]:
    """Live bytes by category, largest first, after each of these numbers of events."""
    totals: dict[str, int] = {}
    held: dict[int, dict[str, int]] = {}
    done = 0
    for position in positions:
        for code in recording.events[done:position]:
            number = abs(code) - 1
            category = recording.lives[number].category
            totals[category] = totals.get(category, 0) + (sizes[number] if code > 0 else -sizes[number])
        done = position
        largest_first = sorted(totals.items(), key=lambda item: -item[1])
        held[position] = {category: nbytes for category, nbytes in largest_first if nbytes}
    return held


def alive_at(recording: Recording, position: int) -> list[Life]:
    """Storages alive after that many events, largest first."""
    alive: dict[int, None] = {}
    for code in recording.events[:position]:
        if code > 0:
            alive[code - 1] = None
        else:
            del alive[-code - 1]
    lives = [recording.lives[number] for number in alive]
    return sorted((life for life in lives if life.category != HOST), key=lambda life: -life.nbytes)
