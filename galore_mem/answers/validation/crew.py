"""Worker processes, one per row: several import and predict side by side, one at a time has the device.

A row has a process of its own, so that its context, its allocator's settings and its fragments are nobody else's, and
so that whatever kills it kills nothing more.
"""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from galore_mem.answers.validation.costs import cost_of
from galore_mem.answers.validation.protocol import Job
from galore_mem.answers.validation.worker import GO, packed

State = Literal["measured", "out-of-memory", "failed", "out-of-time"]
ALLOC_CONF = "PYTORCH_CUDA_ALLOC_CONF"
NEWER_ALLOC_CONF = "PYTORCH_ALLOC_CONF"
PATIENCE_SECONDS = {"cuda": 60.0, "cpu": 900.0}
"""On top of three times a row's estimate, before it counts as hanging; nothing is known of a processor's speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of a row."""

    job: Job
    state: State
    line: str = ""
    """Why, where it failed."""
    is_fatal: bool = False
    """Every further row would fail alike."""


COMMAND = (sys.executable, "-P", "-m", "galore_mem.answers.validation.worker")


LONGEST_LOG_BYTES = 64 << 10
"""Of what a failed row's process printed; the end of it is kept."""


class Worker:
    """One process; its messages and its end are put into `inbox` as (worker, message)."""

    def __init__(self, job: Job, command: Sequence[str], inbox: "queue.Queue[tuple[Worker, dict[str, Any]]]") -> None:
        self.job = job
        self.ready = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment_of(job),
            text=True,
            encoding="utf-8",
        )
        self._tell(packed(job))
        self._listener = threading.Thread(target=self._listen, args=(inbox,), daemon=True)
        self._listener.start()

    def _listen(self, inbox: "queue.Queue[tuple[Worker, dict[str, Any]]]") -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with suppress(ValueError):
                inbox.put((self, json.loads(line)))
        inbox.put((self, {"state": "ended", "code": self._process.wait()}))

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # it died: its end will be heard
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def go(self) -> None:
        """Have it measure."""
        self._tell(GO)

    def end(self) -> None:
        """Kill it if it still runs, and let go of its pipes."""
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def printed(self) -> str:
        """What it printed, or the end of it."""
        length = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, length - LONGEST_LOG_BYTES))
        return self._errors.read().decode(errors="replace")

    def last_words(self, code: int) -> str:
        """How it ended, where it did not say so itself."""
        lines = [line for line in self.printed().splitlines() if line.strip()]
        how = f"its process was killed by signal {-code}" if code < 0 else f"its process ended with code {code}"
        return f"{how}: {lines[-1].strip()[:200]}" if lines else how


def environment_of(job: Job) -> dict[str, str]:
    """A worker's environment: this package found first, and the row's allocator settings and no others."""
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    around = {name: value for name, value in os.environ.items() if name not in (ALLOC_CONF, NEWER_ALLOC_CONF)}
    around["PYTHONPATH"] = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    if job.workload.allocator_settings:
        around[ALLOC_CONF] = job.workload.allocator_settings
    return around


class Crew:
    """Runs jobs to their end.

    Args:
        jobs: in the order in which they should have their turns.
        workers: processes that live at once.
        until: `time.monotonic()` after which no turn begins, nor before it one that should last longer.
        started: called when a job's turn begins.
        command: what a worker is.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        *,
        workers: int,
        until: float,
        started: Callable[[Job], object],
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._command = command
        self._waiting = deque(jobs)
        self._workers = workers
        self._until = until
        self._started = started
        self._live: list[Worker] = []
        self._turn: Worker | None = None
        self._deadline = 0.0
        self._inbox: queue.Queue[tuple[Worker, dict[str, Any]]] = queue.Queue()

    def run(self) -> Generator[Done]:
        """Every job with what became of it, in the order in which they end."""
        try:
            while self._waiting or self._live:
                yield from self._give_turn()
                while self._waiting and len(self._live) < self._workers:
                    self._live.append(Worker(self._waiting.popleft(), self._command, self._inbox))
                if self._live:
                    yield from self._hear()
        finally:
            for worker in self._live:
                worker.end()

    def _give_turn(self) -> Iterator[Done]:
        """The device to the first worker that is ready and has time left; without time, away with the others."""
        now = time.monotonic()
        if now > self._until and self._turn is None:
            gone = [*(worker.job for worker in self._live), *self._waiting]
            for worker in self._live:
                worker.end()
            self._live, self._waiting = [], deque()
            yield from (Done(job=job, state="out-of-time") for job in gone)
        for worker in list(self._live):
            if self._turn is not None or not worker.ready:
                continue
            needs = cost_of(worker.job.workload).turn_seconds
            if now + needs > self._until:
                self._live.remove(worker)
                worker.end()
                yield Done(job=worker.job, state="out-of-time")
                continue
            self._turn, self._deadline = worker, now + 3 * needs + PATIENCE_SECONDS[worker.job.bench.device]
            self._started(worker.job)
            worker.go()

    def _hear(self) -> Iterator[Done]:
        """One message, or the end of patience."""
        waits = [self._deadline if self._turn else self._until]
        try:
            worker, message = self._inbox.get(timeout=max(0.01, min(waits) - time.monotonic()))
        except queue.Empty:
            if self._turn is not None:
                yield self._over(self._turn, "failed", "it took far longer than it should, and was ended")
            return
        if worker not in self._live:
            return
        match message["state"]:
            case "predicted":
                worker.ready = True
            case "done":
                yield self._over(worker, message["outcome"], "")
            case "failed":
                yield self._over(worker, "failed", message["line"], is_fatal=message["is_fatal"])
            case "ended":
                yield self._over(worker, "failed", worker.last_words(message["code"]))

    def _over(self, worker: Worker, state: State, line: str, *, is_fatal: bool = False) -> Done:
        if state == "failed":
            worker.job.shelf.keep_log(f"{line}\n\n{worker.printed()}")
        worker.end()
        self._live.remove(worker)
        if worker is self._turn:
            self._turn = None
        return Done(job=worker.job, state=state, line=line, is_fatal=is_fatal)
