"""Where things of a person's own lie: calibrations and records."""

import os
import sys


def user_folder() -> str:
    """The folder for this program's data, as each system has it; not made here.

    On Linux the rule is spelled out: importing platformdirs takes longer than reading what lies there.
    """
    system: str = sys.platform
    if system != "linux":
        from platformdirs import user_data_dir

        return user_data_dir("galore-mem", appauthor=False)
    base = os.environ.get("XDG_DATA_HOME", "").strip()
    return os.path.join(base or os.path.expanduser("~/.local/share"), "galore-mem")


def checkout() -> str | None:
    """The folder of the checkout that this runs from; None for an installed package."""
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    marks = ("pyproject.toml", os.path.join("tests", "conftest.py"))
    return home if all(os.path.exists(os.path.join(home, mark)) for mark in marks) else None


def records_folder() -> str:
    """Where new records go unless told otherwise: a checkout's own, or a person's."""
    home = checkout()
    return os.path.join(home, "profiles", "measured") if home else os.path.join(user_folder(), "measured")
