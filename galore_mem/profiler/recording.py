"""What a recorder saw: the lives of storages, in order, with the windows of the step they fall into."""

from array import array
from dataclasses import dataclass, field

ALIGNMENT_BYTES = 512
"""The CUDA caching allocator rounds every request up to this (c10/cuda/CUDACachingAllocator.cpp, kMinBlockSize)."""

PHASES: dict[str, str] = {
    "between": "between",
    "forward_end": "forward",
    "loss": "loss",
    "backward_start": "backward",
    "backward_end": "backward",
    "layer_update": "step",
    "step": "step",
    "refresh": "refresh",
}
"""Windows of a step, each named after the moment that its largest value is, with the phase it belongs to."""
HOST = "host"
"""Category of storages that a run on a GPU keeps in host memory: they are in no figure."""


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
    """Births and deaths in order.

    `events` holds the number of a life plus one for a birth, its negative for a death; `windows` and `iterations` say
    of each event into which window and iteration it falls.
    """

    lives: list[Life] = field(default_factory=list)
    events: "array[int]" = field(default_factory=lambda: array("q"))
    windows: list[str] = field(default_factory=list)
    iterations: list[str] = field(default_factory=list)
    borders: list[tuple[int, str, str]] = field(default_factory=list)
    """(position in `events`, iteration, window) wherever a window begins."""


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
    total, border = 0, 0
    borders = recording.borders
    for position in range(len(recording.events) + 1):
        while border < len(borders) and borders[border][0] == position:
            _, iteration, window = borders[border]
            key = (iteration, window)
            if total > best.get(key, (-1, 0))[0]:
                best[key] = (total, position)
            border += 1
        if position == len(recording.events):
            break
        code = recording.events[position]
        total += sizes[code - 1] if code > 0 else -sizes[-code - 1]
        key = (recording.iterations[position], recording.windows[position])
        if total > best.get(key, (-1, 0))[0]:
            best[key] = (total, position + 1)
    return [
        Peak(
            iteration=iteration,
            window=window,
            position=position,
            live_bytes=largest,
            by_category=by_category(recording, position),
        )
        for (iteration, window), (largest, position) in best.items()
    ]


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


def by_category(recording: Recording, position: int) -> dict[str, int]:
    """Live bytes by category after that many events."""
    totals: dict[str, int] = {}
    for life in alive_at(recording, position):
        totals[life.category] = totals.get(life.category, 0) + rounded(life.nbytes)
    return totals
