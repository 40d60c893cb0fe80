"""Every error as one line on stderr and an exit code."""

import os
import sys
from typing import TYPE_CHECKING, cast

from galore_mem.errors import ExitCode, GaloreMemError, missing_extra
from galore_mem.interrupts import came_of_interrupt, forget
from galore_mem.streams import narrate, silence

if TYPE_CHECKING:
    from cyclopts import CycloptsError

    from profiles.errors import InputError


def report(error: BaseException) -> int:
    """Print what happened, why, and what to type next; return the exit code."""
    if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
        silence()  # a help page whose reader has seen enough
        return ExitCode.ANSWERED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, BrokenPipeError):
        silence()
        return ExitCode.ANSWERED
    if isinstance(error, OSError):
        silence()
    line, code = outcome_of(error)
    if code is ExitCode.INTERRUPTED:
        forget()
    narrate(f"{_label()} {line}")
    return code


def outcome_of(error: BaseException) -> tuple[str, ExitCode]:
    """The line and the exit code of an error."""
    if came_of_interrupt(error):
        return "interrupted", ExitCode.INTERRUPTED
    if isinstance(error, ModuleNotFoundError):
        error = missing_extra(error, "this command") or error
    if isinstance(error, GaloreMemError):
        return _sentence(error.what, error.why, error.fix), error.exit_code
    if _is(error, "profiles.errors", "InputError"):
        refused = cast("InputError", error)
        return _sentence(refused.what, refused.why, refused.fix), ExitCode.BAD_INPUT
    if _is(error, "cyclopts.exceptions", "CycloptsError"):
        from galore_mem.commands.usage import usage_line

        return _one_line(usage_line(cast("CycloptsError", error))), ExitCode.BAD_INPUT
    if isinstance(error, MemoryError):
        return "this machine has no memory left for it; close other programs, or ask for less", ExitCode.BAD_INPUT
    if isinstance(error, OSError):
        return _one_line(f"{error.strerror or error}: {error.filename or 'output'}"), ExitCode.BAD_INPUT
    fault = _one_line(f"{type(error).__name__}: {error}")
    return (
        f"galore-mem has a fault: {fault}. Run the same line with --debug and report the traceback",
        ExitCode.FAULT,
    )


def _is(error: BaseException, module: str, name: str) -> bool:
    """Whether `error` is of a class whose module may not be imported yet, in which case it cannot be."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(error, kind)


def _sentence(what: str, why: str, fix: str) -> str:
    """`what: why; fix`, on one line."""
    reason = f": {why.rstrip('.')}" if why else ""
    return _one_line(what.rstrip(".") + reason + (f"; {fix}" if fix else ""))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _label() -> str:
    colour = sys.stderr is not None and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    return "\033[1;31merror:\033[0m" if colour else "error:"
