"""The last state, kept where each system keeps such things; a file that cannot be used is put aside, not lost."""

import json
import os
from pathlib import Path

from galore_mem.errors import GaloreMemError, UsageError
from galore_mem.tapes.atomic import write_bytes
from galore_mem.tui.state import State, state_from
from profiles.errors import InputError

_LARGEST_BYTES = 1 << 20


def default_path() -> Path:
    """Where the state of this person lies."""
    from platformdirs import user_state_path

    return user_state_path("galore-mem", appauthor=False) / "tui.json"


def load(path: Path) -> tuple[State, str]:
    """The saved state, or the first one; and what a person should know about that.

    A file that cannot be used is renamed to `tui.json.unusable`.
    """
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise UsageError("the saved state is too large")
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise UsageError("the saved state is no object")
        return state_from(data), ""
    except FileNotFoundError:
        return State(), ""
    except OSError as error:
        return State(), f"the saved state cannot be read: {error.strerror or error}; started afresh"
    except (ValueError, TypeError, RecursionError, GaloreMemError, InputError) as error:
        return State(), f"the saved state cannot be used ({_reason(error)}); started afresh{_put_aside(path)}"


def save(path: Path, state: State) -> None:
    """Write the state, atomically; its folder is made.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {path.parent}", error.strerror or str(error)) from None
    write_bytes(path, (json.dumps(state.to_dict(), indent=1, sort_keys=True) + "\n").encode())


class Keeper:
    """Keeps the state, as long as that works; a person is told once when it does not."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def keep(self, state: State) -> str:
        """Write the state; what went wrong, or nothing."""
        if self._path is None:
            return ""
        try:
            save(self._path, state)
        except GaloreMemError as error:
            self._path = None
            return f"the state is not kept: {error}"
        return ""


def _put_aside(path: Path) -> str:
    aside = path.with_name(f"{path.name}.unusable")
    try:
        os.replace(path, aside)
    except OSError:
        return ""
    return f", the old one is kept as {aside.name}"


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"it is no JSON at line {error.lineno}"
    return str(error)[:120]
