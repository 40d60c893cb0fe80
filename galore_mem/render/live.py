"""A bar on stderr with the memory of a run that goes on, while a terminal is there to watch it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

Meter = Callable[[], tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What a run is told to call."""

    told: Callable[[str], None]
    """With the name of each stage as it begins."""
    watched: Callable[[Meter], None]
    """Once, with what reads current and peak bytes."""


@contextmanager
def live(steps: int) -> Iterator[Live]:
    """A bar over the steps with current and peak memory; nothing where stderr is no terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield Live(told=lambda stage: None, watched=lambda meter: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
    from rich.text import Text

    meters: list[Meter] = []

    class MemoryColumn(ProgressColumn):
        """`1.24 GiB now, 3.10 at most`."""

        def render(self, task: Task) -> Text:
            return Text(memory_text(*meters[-1]()) if meters else "")

    columns = (TextColumn("{task.description:<22}"), BarColumn(bar_width=20), MemoryColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=steps)

        def told(stage: str) -> None:
            done = int(stage.split()[1]) - 1 if stage.startswith("step ") else None
            shown.update(task, description=stage, completed=done)

        yield Live(told=told, watched=meters.append)


def memory_text(now_bytes: int, most_bytes: int) -> str:
    """Current and peak memory."""
    return f"{now_bytes / 2**30:.2f} GiB now, {most_bytes / 2**30:.2f} at most"
