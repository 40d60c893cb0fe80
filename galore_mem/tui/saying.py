"""What went wrong, in one line, whatever it was."""

from galore_mem.errors import GaloreMemError, missing_extra
from profiles.errors import InputError


def line_of(error: BaseException, feature: str) -> str:
    """An error as a person reads it.

    Args:
        error: expected or not.
        feature: what was being done, for packages that are missing and for faults of ours.
    """
    found = missing_extra(error, feature) if isinstance(error, ModuleNotFoundError) else None
    if found is not None:
        error = found
    if isinstance(error, GaloreMemError | InputError):
        reason = f": {error.why.rstrip('.')}" if error.why else ""
        line = error.what.rstrip(".") + reason + (f"; {error.fix}" if error.fix else "")
    elif isinstance(error, OSError):
        line = f"{error.strerror or error}: {error.filename or feature}"
    else:
        line = f"{feature} failed, which is a fault of galore-mem: {type(error).__name__}: {error}"
    return " ".join(line.split())
