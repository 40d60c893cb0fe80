"""Steps told apart and timed: the first, steady ones, and those that recompute projectors."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from galore_mem.profiler.recording import PHASES

StepKind = Literal["first", "steady", "refresh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One step as it ran."""

    number: int
    """From 1."""
    kind: StepKind
    """`first` creates states (and projectors); `refresh` is any later one that recomputes projectors."""
    seconds: dict[str, float]
    """By phase; `between` left out."""
    start: int
    """Events that were recorded before it."""
    peak_allocated_bytes: int | None = None
    """By the allocator's own counters; None where there is no allocator to ask."""
    peak_reserved_bytes: int | None = None

    @property
    def total_seconds(self) -> float:
        """All phases together."""
        return sum(self.seconds.values())

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "number": self.number,
            "kind": self.kind,
            "seconds": {phase: round(value, 6) for phase, value in self.seconds.items()},
            "start": self.start,
            "peak_allocated_bytes": self.peak_allocated_bytes,
            "peak_reserved_bytes": self.peak_reserved_bytes,
        }


@dataclass(slots=True)
class _Step:
    start: int
    borders: list[tuple[str, Any]] = field(default_factory=list)
    """(phase, instant) in order."""


class Stopwatch:
    """A witness between the step and another witness: passes everything on, and notes when each window began.

    Args:
        witness: who watches.
        position: how many events were recorded so far.
        instant: a point in time.
        elapsed: seconds between two of them.
    """

    def __init__(
        self,
        witness: Any,  # noqa: ANN401
        position: Callable[[], int],
        instant: Callable[[], Any] = time.perf_counter,
        elapsed: Callable[[Any, Any], float] = lambda start, stop: float(stop - start),
    ) -> None:
        self._witness = witness
        self._position = position
        self._instant = instant
        self._elapsed = elapsed
        self._steps: list[_Step] = []
        self._window = "between"

    def begin(self, iteration: str) -> None:
        """A new iteration starts."""
        self.start()
        self._witness.begin(iteration)
        self.note("between")

    def enter(self, window: str) -> None:
        """Another window of the step begins."""
        self._witness.enter(window)
        self.note(window)

    @contextmanager
    def during(self, window: str) -> Iterator[None]:
        """A window that lies inside another one, which goes on afterwards."""
        outer = self._window
        with self._witness.during(window):
            self.note(window)
            yield
        self.note(outer)

    def scope(self, category: str) -> Any:  # noqa: ANN401
        """Whatever is born in here has this category."""
        return self._witness.scope(category)

    def claim(self, category: str, tensors: Any, owner: str = "") -> None:  # noqa: ANN401
        """Name the category of living tensors, and whose they are."""
        self._witness.claim(category, tensors, owner)

    def start(self) -> None:
        """A new step starts."""
        self._steps.append(_Step(self._position()))

    def note(self, window: str) -> None:
        """A window begins now."""
        self._window = window
        if self._steps:
            self._steps[-1].borders.append((PHASES[window], self._instant()))

    def finish(self) -> None:
        """The last step has ended."""
        self.note("between")

    def records(self) -> tuple[StepRecord, ...]:
        """What is known of each step."""
        return tuple(self._record(number, step) for number, step in enumerate(self._steps, 1))

    def _record(self, number: int, step: _Step) -> StepRecord:
        seconds: dict[str, float] = {}
        for (phase, start), (_, stop) in zip(step.borders, step.borders[1:], strict=False):
            if phase != "between":
                seconds[phase] = seconds.get(phase, 0.0) + self._elapsed(start, stop)
        kind: StepKind = "first" if number == 1 else "refresh" if "refresh" in seconds else "steady"
        return StepRecord(number=number, kind=kind, seconds=seconds, start=step.start)
