"""Batches of other lengths from step to step: what their order does to reserved memory, and what would remove it.

Dynamic padding leaves the live peak at that of the longest batch. The allocator, however, finds blocks that fit one
length too short for the next, and reserves more. How much depends on the order, so several are replayed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from estimators.allocator.parse import parse_settings
from estimators.allocator.replay import Event, replay
from estimators.analytic.cards import CardTraits
from estimators.workload import Workload
from galore_mem.answers.steps import Step, Told, record_pieces, steps_of
from galore_mem.profiler.recording import Recording
from galore_mem.witness import EMPTY_CACHE, HOST
from profiles.errors import InputError

if TYPE_CHECKING:
    from estimators.analytic.parameters import ParameterGroup
    from galore_mem.profiler.splice import Piece

DEFAULT_STEPS = 8
ORDERS = 8
"""Orders that are replayed: the one drawn, and shuffles of it."""
EXPANDABLE = "expandable_segments:True"
Lengths = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Sequence lengths, step by step."""

    lengths: Lengths
    seed: int
    asked: str
    """As a person gave them."""

    @property
    def varies(self) -> bool:
        """Whether there are steps of different lengths."""
        return len(set(self.lengths)) > 1

    def orders(self) -> tuple[Lengths, ...]:
        """The lengths as drawn, and shuffled again and again: each order once."""
        random = Random(f"orders {self.seed}")
        found = {self.lengths: None}
        for _ in range(20 * ORDERS):
            if len(found) == ORDERS:
                break
            found[tuple(random.sample(self.lengths, len(self.lengths)))] = None
        return tuple(found)

    @property
    def multiple(self) -> int:
        """The power of two, at least 8, that leaves half the lengths and at most four when batches are padded to it."""
        lengths, multiple = set(self.lengths), 8
        most = max(1, min(4, len(lengths) // 2))
        while len({-(-length // multiple) for length in lengths}) > most:
            multiple *= 2
        return multiple

    def distribution(self) -> dict[str, Any]:
        """What was drawn, in numbers."""
        lengths = self.lengths
        return {
            "shortest": min(lengths),
            "median": median(lengths),
            "mean": round(mean(lengths), 1),
            "longest": max(lengths),
            "distinct": len(set(lengths)),
        }


def course_of(lengths: str | Sequence[int] | None, steps: int | None, seed: int, tokens: int) -> Course | None:
    """The course that a person asks for; None where it is an ordinary trace.

    Args:
        lengths: `LOW:HIGH`, of which each step's length is drawn with equal chances; or the lengths themselves.
        steps: how many.
        seed: of what is drawn.
        tokens: the length of all steps where `lengths` is None.

    Raises:
        InputError: no such range, or no such number of steps.
    """
    if steps is not None and (isinstance(steps, bool) or steps < 1):
        raise InputError(f"--steps {steps} is not a positive whole number", "", "give 1 or more")
    if lengths is None:
        return None if steps is None else Course(lengths=(tokens,) * steps, seed=seed, asked=str(tokens))
    if not isinstance(lengths, str):
        return _course_of_list([*lengths], steps, seed, ",".join(map(str, lengths)))
    if ":" not in lengths:
        return _course_of_list([_tokens(word, lengths) for word in lengths.split(",")], steps, seed, lengths)
    low, high = (_tokens(word, lengths) for word in lengths.split(":", 1))
    if low > high:
        raise InputError(f"--lengths {lengths}: {low} is more than {high}", "", f"give --lengths {high}:{low}")
    random = Random(seed)
    drawn = tuple(random.randint(low, high) for _ in range(steps or DEFAULT_STEPS))
    return Course(lengths=drawn, seed=seed, asked=lengths)


def _course_of_list(lengths: list[int], steps: int | None, seed: int, asked: str) -> Course:
    if not lengths or any(isinstance(length, bool) or length < 1 for length in lengths):
        raise InputError(f"--lengths {asked} holds a length below 1", "", "give LOW:HIGH, such as 64:256")
    if steps is not None and steps != len(lengths):
        raise InputError(f"--lengths {asked} names {len(lengths)} steps, and --steps {steps}", "", "leave out --steps")
    return Course(lengths=tuple(lengths), seed=seed, asked=asked)


def _tokens(word: str, text: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) < 10 and int(word) > 0):
        raise InputError(f"--lengths {text} is no range of lengths", "", "give LOW:HIGH in tokens, such as 64:256")
    return int(word)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserved:
    """Reserved peaks over orders."""

    name: str
    reason: str
    settings: str
    """Of the allocator."""
    lengths: Lengths
    """Of the first order."""
    peaks_bytes: tuple[int, ...]
    """One for each order."""

    @property
    def low_bytes(self) -> int:
        """In the best order."""
        return min(self.peaks_bytes)

    @property
    def high_bytes(self) -> int:
        """In the worst order."""
        return max(self.peaks_bytes)

    def to_dict(self) -> dict[str, Any]:
        """One row of the JSON output."""
        return {
            "name": self.name,
            "settings": self.settings,
            "lengths": list(self.lengths),
            "peak_reserved_bytes": list(self.peaks_bytes),
            "low_bytes": self.low_bytes,
            "high_bytes": self.high_bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """What the order of lengths does."""

    course: Course
    orders: tuple[Lengths, ...]
    reserved: Reserved
    """As the run is set, over the orders."""
    equal: Reserved
    """Were every batch as long as the longest."""
    remedies: tuple[Reserved, ...]
    """What would narrow or lower the range."""

    def to_dict(self) -> dict[str, Any]:
        """The `lengths` object of the JSON output."""
        return {
            "asked": self.course.asked,
            "seed": self.course.seed,
            "steps": list(self.course.lengths),
            "distribution": self.course.distribution(),
            "orders": [list(order) for order in self.orders],
            "reserved": self.reserved.to_dict(),
            "equal": self.equal.to_dict(),
            "remedies": [remedy.to_dict() for remedy in self.remedies],
        }


class Courses:
    """Runs of steps, every kind of step recorded once."""

    def __init__(self, workload: Workload, kernel: str, workspace_bytes: int, card: CardTraits, told: Told) -> None:
        self.workload = workload
        self._kernel = kernel
        self._workspace_bytes = workspace_bytes
        self._card = card
        self._told = told
        self._pieces: dict[Step, Piece] = {}
        self.groups: tuple[ParameterGroup, ...] = ()
        """All parameters."""

    def prepare(self, runs: Iterable[Lengths]) -> None:
        """Record what these runs need and is not there yet."""
        needed = {step for lengths in runs for step in steps_of(self.workload, lengths)}
        pieces, self.groups = record_pieces(
            self.workload,
            self._kernel,
            needed,
            workspace_bytes=self._workspace_bytes,
            card=self._card,
            told=self._told,
        )
        self._pieces |= pieces

    def recording(self, lengths: Lengths) -> Recording:
        """The recording of steps of these lengths.

        Raises:
            InputError: something that depends on a step's length outlives it.
        """
        from galore_mem.profiler.splice import Unspliceable, splice

        try:
            return splice([self._pieces[step] for step in steps_of(self.workload, lengths)])
        except Unspliceable as refusal:
            category, module, operator, _ = (*refusal.before, *refusal.after)[0]
            raise InputError(
                f"{self.workload.model.name} cannot be traced over different lengths",
                f"what outlives a step depends on its length ({category} made by {operator} in {module or 'the step'})",
                "leave out --lengths",
            ) from None

    def peak_reserved(self, lengths: Lengths, settings: str) -> int:
        """The reserved peak of steps of these lengths."""
        return replay(events_of(self.recording(lengths)), parse_settings(settings)).peak_reserved_bytes


def events_of(recording: Recording) -> Iterable[Event]:
    """A recording as the allocator's replica takes it; what a run keeps on the host is left out."""
    sizes = [-1 if life.category == HOST else life.nbytes for life in recording.lives]
    for begin, end, _, window in recording.stretches():
        if window == EMPTY_CACHE:
            yield ("empty_cache", 0, 0, 0, 0)
        for code in recording.events[begin:end]:
            number = code - 1 if code > 0 else -code - 1
            size = sizes[number]
            if size >= 0:
                yield ("alloc" if code > 0 else "free", number, size, 0, 0)


def vary(courses: Courses, course: Course, told: Told) -> Variation:
    """Replay a course in several orders, as it is and with each remedy."""
    own = courses.workload.allocator_settings
    orders = course.orders()
    multiple, limit = course.multiple, max(courses.workload.model.max_position_embeddings, *course.lengths)
    longest = (max(course.lengths),) * len(course.lengths)
    padded = [tuple(min(-(-length // multiple) * multiple, limit) for length in order) for order in orders]
    first = [_longest_first(order) for order in orders]
    expandable = f"{own},{EXPANDABLE}" if own else EXPANDABLE
    courses.prepare([*orders, *padded, *first, longest])

    def row(name: str, reason: str, runs: Sequence[Lengths], settings: str = own) -> Reserved:
        told(f"replaying: {name}")
        seen = {run: courses.peak_reserved(run, settings) for run in dict.fromkeys(runs)}
        peaks = tuple(seen[run] for run in runs)
        return Reserved(name=name, reason=reason, settings=settings, lengths=runs[0], peaks_bytes=peaks)

    return Variation(
        course=course,
        orders=orders,
        reserved=row("as drawn", f"over {len(orders)} orders", orders),
        equal=row(f"every batch {longest[0]:,} tokens", "no lengths to differ", [longest]),
        remedies=(
            row("expandable_segments", "one growing range in place of segments", orders, expandable),
            row(f"padded to a multiple of {multiple}", "fewer lengths", padded),
            row("longest batch first", "its blocks serve the shorter ones", first),
        ),
    )


def _longest_first(order: Lengths) -> Lengths:
    place = order.index(max(order))
    return (order[place], *order[:place], *order[place + 1 :])
