"""Errors that carry the way out, and the exit codes of the command line."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process tells its caller."""

    ANSWERED = 0
    CHECK_FAILED = 1
    """`--check` or `--budget` says no."""
    BAD_INPUT = 2
    NO_DEVICE = 3
    NETWORK = 4
    FAULT = 70
    """galore-mem itself failed (EX_SOFTWARE of sysexits.h); never mistaken for the 1 of `--check`."""
    INTERRUPTED = 130


class GaloreMemError(Exception):
    """Something a person can act on.

    Args:
        what: what happened, naming the offending value.
        why: the reason, one clause; may be empty.
        fix: the exact thing to type or change next; may be empty.
    """

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        self.what = what
        self.why = why
        self.fix = fix
        super().__init__(". ".join(part.rstrip(".") for part in (what, why, fix) if part))


class UsageError(GaloreMemError):
    """Options that contradict each other, or a file that cannot be used."""


class MissingExtraError(GaloreMemError):
    """A command needs an optional dependency that is not installed.

    Args:
        feature: what needs it.
        extra: the extra that brings it; empty where the base install should have.
        module: the module that was not found, where it is known.
    """

    def __init__(self, feature: str, extra: str, module: str = "") -> None:
        from galore_mem.installed import command

        super().__init__(
            f"{feature} needs packages that are not installed",
            f"no module {module}" if module else "",
            f"run: {command(extra)}",
        )


class NoDeviceError(GaloreMemError):
    """No usable GPU or driver."""

    exit_code = ExitCode.NO_DEVICE


class NetworkError(GaloreMemError):
    """The network was needed and did not answer."""

    exit_code = ExitCode.NETWORK


EXTRAS = {
    **dict.fromkeys(("torch", "transformers", "accelerate", "bitsandbytes"), "train"),
    **dict.fromkeys(("galore_torch", "peft"), "test"),
    **dict.fromkeys(("cyclopts", "rich", "textual", "plotly", "pynvml", "platformdirs", "yaml"), ""),
}
"""Which extra brings a package that a command may miss; the base install brings those with none."""


def missing_extra(error: ModuleNotFoundError, feature: str) -> MissingExtraError | None:
    """What to install where a package of ours is missing; None where the missing one is somebody else's.

    Args:
        error: what the import raised.
        feature: what needs the package.
    """
    module = (error.name or "").partition(".")[0]
    return MissingExtraError(feature, EXTRAS[module], module) if module in EXTRAS else None
