"""Work that waits for a quiet moment."""

from collections.abc import Callable
from typing import Any, cast

from galore_mem.tui.later import Later


class Clock:
    """An app whose timers fire when a test says so, even when they were stopped too late."""

    def __init__(self) -> None:
        self.fired: list[Callable[[], None]] = []

    def set_timer(self, seconds: float, work: Callable[[], None]) -> "Clock":
        """Remember what to call."""
        self.fired.append(work)
        return Clock()

    def stop(self) -> None:
        """Too late."""


def test_a_timer_that_had_fired_before_it_was_stopped_does_nothing() -> None:
    clock, done = Clock(), list[str]()
    later = Later(cast("Any", clock))
    later.ask("plot", 0.1, lambda: done.append("first"))
    later.ask("plot", 0.1, lambda: done.append("second"))
    for work in clock.fired:
        work()
    assert done == ["second"]
    assert later.waiting == frozenset()
