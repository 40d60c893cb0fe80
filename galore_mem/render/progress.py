"""Progress on stderr, while a terminal is there to watch it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A spinner with the name of the current stage; nothing where stderr is no terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda stage: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from galore_mem.answers.steps import STAGES

    columns = (TextColumn("{task.description:<26}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=len(STAGES))

        def told(stage: str) -> None:
            shown.update(task, description=stage, completed=STAGES.index(stage) if stage in STAGES else len(STAGES) - 1)

        yield told
