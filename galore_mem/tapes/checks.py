"""Values out of a file nobody vouches for."""

from typing import Any, NoReturn

from galore_mem.errors import UsageError

INT64 = 1 << 63
MOST_DEVICES = 256
"""More than any process sees; each is replayed several times."""


class Refusal(Exception):  # noqa: N818 - not an error of the program: what a file gets for an answer
    """A file's content cannot be used; the reader turns it into a `UsageError` that names the file."""


def refuse(reason: str) -> NoReturn:
    """Give up on a file.

    Raises:
        Refusal: always.
    """
    raise Refusal(reason)


def a_dict(value: object, what: str) -> dict[Any, Any]:
    """`value`, which must be a dict."""
    return value if type(value) is dict else refuse(f"{what} is {_kind(value)} where a dict was expected")


def a_list(value: object, what: str) -> list[Any]:
    """`value`, which must be a list."""
    return value if type(value) is list else refuse(f"{what} is {_kind(value)} where a list was expected")


def an_int(value: object, what: str) -> int:
    """`value`, which must be an integer of 64 bits; addresses above 2^63 wrap as torch's own do."""
    if type(value) is not int or not -INT64 <= value < 2 * INT64:
        refuse(f"{what} is {_kind(value)} where a 64-bit integer was expected")
    return value if value < INT64 else value - 2 * INT64


def a_size(value: object, what: str) -> int:
    """`value`, which must be a number of bytes."""
    number = an_int(value, what)
    return number if number >= 0 else refuse(f"{what} is negative")


def a_text(value: object, what: str) -> str:
    """`value`, which must be a string."""
    return value if type(value) is str else refuse(f"{what} is {_kind(value)} where a text was expected")


def _kind(value: object) -> str:
    if value is None:
        return "missing"
    if type(value) is int:
        return "a number out of range" if not -INT64 <= value < 2 * INT64 else "a number"
    return f"a {type(value).__name__}"


def unusable(path: object, what: str, reason: str, fix: str = "") -> UsageError:
    """The one line that a person reads."""
    return UsageError(f"{path} is not {what} that can be used", reason, fix)
