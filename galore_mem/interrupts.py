"""Ctrl-C that is never lost.

Python drops an exception that is raised while a finaliser runs: it prints a traceback and goes on. A trace spends a
good part of its time in finalisers, as it notes the deaths of storages.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

AGAIN_SECONDS = 0.02


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
    """While entered, an interrupt that falls into a finaliser comes again a moment later."""
    plain = sys.unraisablehook

    def hook(dropped: "sys.UnraisableHookArgs") -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            plain(dropped)
            return
        from threading import Timer

        again = Timer(AGAIN_SECONDS, _interrupt_main)
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = plain
