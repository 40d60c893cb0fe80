"""A trace in a process of its own: torch stays out of this one, keys stay quick, and it can be stopped."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from estimators.footprint import Footprint
from estimators.workload import Workload
from galore_mem.errors import GaloreMemError
from galore_mem.tui.beside import footprint_from
from galore_mem.tui.board import NamedCard
from galore_mem.tui.rows import Row

CHILD = "galore_mem.tui.tracing_child"
STAGE = "stage\t"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to trace."""

    key: str
    """The row."""
    name: str
    workload: Workload
    gpu: str
    """As the person named it."""
    other_use_bytes: int


def request_of(row: Row, card: NamedCard) -> Request:
    """The trace of a row on a card."""
    others = card.card.other_use_bytes
    return Request(key=row.key, name=row.name, workload=row.workload, gpu=card.name, other_use_bytes=others)


class TraceError(GaloreMemError):
    """A trace that came to nothing."""


def child_command() -> list[str]:
    """The Python that runs us, away from the current folder."""
    return [sys.executable, "-P", "-m", CHILD]


def child_environment() -> dict[str, str]:
    """Ours, with the folder of this package first."""
    home = str(Path(__file__).resolve().parents[2])
    others = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in (home, others) if part)}


class Tracer:
    """One trace at a time."""

    def __init__(self, command: Callable[[], Sequence[str]] = child_command) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(self, request: Request, told: Callable[[str], object]) -> tuple[Footprint, dict[str, Any]]:
        """Trace, and return the footprint and the whole answer; blocks until the process ends.

        Raises:
            TraceError: it failed or was stopped; says why.
        """
        self._stopped = False
        process = subprocess.Popen(
            self._command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment(),
            start_new_session=True,
        )
        self._process = process
        last: list[str] = []
        listener = Thread(target=_listen, args=(process, told, last), daemon=True)
        listener.start()
        try:
            output = _talk(process, pickle.dumps(request))
        finally:
            process.kill()
            process.wait()
            listener.join(timeout=5)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
            self._process = None
        if self._stopped:
            raise TraceError(f"the trace of {request.name} was stopped")
        return _answer(output, request, last)

    def stop(self) -> bool:
        """End the trace that runs; whether there was one."""
        process = self._process
        if process is None:
            return False
        self._stopped = True
        process.kill()
        return True


def _talk(process: subprocess.Popen[bytes], data: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(data)
        process.stdin.close()
    except BrokenPipeError:
        pass
    return process.stdout.read()


def _listen(process: subprocess.Popen[bytes], told: Callable[[str], object], last: list[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        text = line.decode(errors="replace").rstrip()
        if text.startswith(STAGE):
            told(text.removeprefix(STAGE))
        elif text:
            last[:] = [text]


def _answer(output: bytes, request: Request, last: Sequence[str]) -> tuple[Footprint, dict[str, Any]]:
    try:
        found = json.loads(output)
    except ValueError:
        why = last[0][:200] if last else "its process ended without an answer"
        raise TraceError(f"the trace of {request.name} failed", why) from None
    if not isinstance(found, dict):
        raise TraceError(f"the trace of {request.name} failed", "its answer is no object")
    if "error" in found:
        raise TraceError(f"cannot trace {request.name}", str(found["error"]))
    return footprint_from(found.get("footprint", {})), found
