"""Typed values out of a JSON file that anybody may have written."""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from profiles.errors import InputError

LARGEST_FILE_BYTES = 8 << 20
"""No file of ours comes near it."""
LARGEST_COUNT = 1 << 60
_BROKEN = "it is cut off, or was never whole"


class Fields:
    """One JSON object; every access names what is wrong with the file instead of failing later.

    Args:
        data: the object.
        file: its path, for messages.
        what: what the file should be, such as `a record`.
    """

    def __init__(self, data: Mapping[str, Any], file: str, what: str) -> None:
        self._data = data
        self._file = file
        self._what = what

    def __contains__(self, name: str) -> bool:
        return self._data.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    @property
    def plain(self) -> dict[str, Any]:
        """The object as it is."""
        return dict(self._data)

    def text(self, name: str, choices: tuple[str, ...] = ()) -> str:
        """A string; one of `choices` where there are any."""
        value = self._data.get(name)
        if not isinstance(value, str) or not value.isprintable():
            self.refuse(f"{name} is no printable text")
        if choices and value not in choices:
            self.refuse(f"{name} is {value[:40]!r}, not one of {', '.join(choices)}")
        return value

    def count(self, name: str) -> int:
        """A whole number of bytes or things, not negative."""
        value = self._data.get(name)
        if type(value) is not int or not 0 <= value < LARGEST_COUNT:
            self.refuse(f"{name} is no number of bytes")
        return value

    def maybe_count(self, name: str) -> int | None:
        """Like `count`; None where the field is missing or null."""
        return self.count(name) if name in self else None

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._data.get(name)
        if type(value) is not bool:
            self.refuse(f"{name} is neither true nor false")
        return value

    def number(self, name: str) -> float:
        """A number that is not negative."""
        value = self._data.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LARGEST_COUNT:
            self.refuse(f"{name} is no number")
        return float(value)

    def inner(self, name: str) -> "Fields":
        """An object inside."""
        value = self._data.get(name)
        if not isinstance(value, dict):
            self.refuse(f"{name} is no object")
        return Fields(value, self._file, self._what)

    def inners(self, name: str) -> "list[Fields]":
        """A list of objects."""
        values = self._data.get(name)
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            self.refuse(f"{name} is no list of objects")
        return [Fields(value, self._file, self._what) for value in values]

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        values = self._data.get(name)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            self.refuse(f"{name} is no list of texts")
        return tuple(values)

    def counts(self, name: str) -> dict[str, int]:
        """Numbers of bytes by name."""
        inner = self.inner(name)
        return {key: inner.count(key) for key in inner}

    def refuse(self, why: str) -> NoReturn:
        """Give up on the file.

        Raises:
            InputError: always.
        """
        raise InputError(f"{self._file} is not {self._what}", why, "move it elsewhere")


def read_object(path: str | os.PathLike[str], what: str, schema: str) -> Fields:
    """The JSON object of a file.

    Args:
        path: the file.
        what: what it should be, such as `a record`.
        schema: what its `schema` says, `name/version`.

    Raises:
        InputError: it cannot be read, is no JSON, or was written by another version.
    """
    file = os.fspath(path)
    try:
        with open(file, "rb") as stream:
            content = stream.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {file}", error.strerror or str(error), "") from None
    if len(content) > LARGEST_FILE_BYTES:
        raise InputError(
            f"{file} is not {what}", f"it is larger than {LARGEST_FILE_BYTES >> 20} MiB", "move it elsewhere"
        )
    try:
        data = json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise InputError(f"{file} is not {what}", f"its JSON is broken: {_BROKEN}", "move it elsewhere") from None
    if not isinstance(data, dict):
        raise InputError(f"{file} is not {what}", "it holds no object", "move it elsewhere")
    _check_schema(data.get("schema"), file, what, schema)
    return Fields(data, file, what)


def _check_schema(found: object, file: str, what: str, schema: str) -> None:
    if found == schema:
        return
    family = schema.rpartition("/")[0]
    if isinstance(found, str) and found.rpartition("/")[0] == family:
        raise InputError(
            f"{file} was written by another version of galore-mem",
            f"its schema is {found[:60]}, this version reads {schema}",
            "use that version, or move the file elsewhere",
        )
    raise InputError(f"{file} is not {what}", f"its schema is not {schema}", "move it elsewhere")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
