"""Files that are either whole or not there."""

import os
import tempfile
from pathlib import Path

from galore_mem.errors import UsageError


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write to a temporary file beside `path`, then rename it.

    Raises:
        UsageError: the folder does not exist or cannot be written to.
    """
    target = Path(path)
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:40]}.", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise UsageError(f"cannot write {target}", error.strerror or str(error), "name a file you can write") from None


def check_target(path: str | os.PathLike[str]) -> None:
    """Refuse now what `write_bytes` would refuse after minutes of work.

    Raises:
        UsageError: a folder or a device, or in a folder that does not exist or cannot be written to.
    """
    target = Path(path)
    folder = target.parent
    named, why = str(target), ""
    if target.is_dir():
        named, why = f"{target}{os.sep}", "it is a folder"
    elif target.exists() and not target.is_file():
        why = "it is no ordinary file, and would be replaced by one"
    elif not folder.is_dir():
        why = f"there is no folder {folder}"
    elif not os.access(folder, os.W_OK):
        why = f"the folder {folder} is not yours to write to"
    if why:
        raise UsageError(f"cannot write {named}", why, "name a file you can write")


def check_free(path: str | os.PathLike[str], *, force: bool, how: str = "add --force") -> None:
    """Whether a result may be written there; asked before the work begins.

    Args:
        path: where to.
        force: replace what is there.
        how: what to do to replace it.

    Raises:
        UsageError: the file exists and `force` is off, or it could not be written.
    """
    check_target(path)
    if not force and os.path.lexists(path):
        raise UsageError(f"{path} exists", "", f"{how} to replace it, or name another file")
