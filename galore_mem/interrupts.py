"""Ctrl-C that is never lost.

Python drops an exception that is raised while a finaliser runs: it prints a traceback and goes on. A trace spends a
good part of its time in finalisers, as it notes the deaths of storages. Libraries turn an interrupt into an error of
theirs (Python itself does, up to 3.11, inside `__set_name__`; transformers' imports pass that on as a missing module)
or swallow it. So it is noted when the signal comes, whatever becomes of the exception.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threading import Timer
    from types import FrameType

AGAIN_SECONDS = 0.02


def came_of_interrupt(error: BaseException) -> bool:
    """Whether an interrupt is what began it."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        if isinstance(link, KeyboardInterrupt):
            return True
        seen.add(id(link))
        link = link.__cause__ or link.__context__
    return False


def forget() -> None:
    """Let the process end with an exit code of its own choice.

    An interrupt that came while a string was executed, as dataclasses and named tuples do when they are made, leaves a
    mark by which Python ends the process with the signal, caught or not. The next string to be executed removes it
    (run_eval_code_obj of Python/pythonrun.c).
    """
    exec("")


def _interrupt_main() -> None:
    """As Ctrl-C does: wakes the main thread, too, where the system can."""
    import signal
    import threading

    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def kept() -> Iterator[None]:
    """While entered, an interrupt that falls into a finaliser comes again a moment later, and none turns into an error.

    Raises:
        KeyboardInterrupt: at the end, too, where one came and was swallowed.
    """
    plain = sys.unraisablehook
    again: list[Timer] = []

    def hook(dropped: "sys.UnraisableHookArgs") -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            plain(dropped)
            return
        from threading import Timer

        again.append(Timer(AGAIN_SECONDS, _interrupt_main))
        again[-1].daemon = True
        again[-1].start()

    sys.unraisablehook = hook
    try:
        with _noted() as came:
            try:
                yield
            except BaseException as error:
                if came and not isinstance(error, KeyboardInterrupt):
                    raise KeyboardInterrupt from error
                raise
            if came:
                raise KeyboardInterrupt
    finally:
        sys.unraisablehook = plain
        for timer in again:
            timer.cancel()  # one that came later would find a process that is ending, and kill it


@contextmanager
def _noted() -> Iterator[list[int]]:
    """Interrupts as they come; none where somebody else handles them, or outside of the main thread."""
    import signal
    import threading

    came: list[int] = []
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not is_ours or threading.current_thread() is not threading.main_thread():
        yield came
        return

    def note(number: int, frame: "FrameType | None") -> None:
        came.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
