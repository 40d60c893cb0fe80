"""Typed reading of a `config.json`: every complaint names the key, what it holds, and what it should hold."""

import json
from collections.abc import Mapping
from typing import Any

from profiles.errors import InputError, UncoveredError

_LARGEST = 2**31 - 1


class ConfigKeys:
    """A config under the name that errors give it.

    Every method raises InputError for a value of another type or range.
    """

    def __init__(self, config: Mapping[str, Any], name: str) -> None:
        self._config = config
        self._name = name

    def contradiction(self, key: str, why: str) -> InputError:
        """The error for a key that other keys, or its own value, rule out."""
        return InputError(f"{self._name}: {key} {why}", "", f"correct {key} in the config")

    def uncovered(self, key: str, why: str) -> UncoveredError:
        """The error for a valid model that has no activation ledger."""
        return UncoveredError(f"{self._name}: {key} {why}", "no activation ledger covers that yet", "")

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self._config.get(key) is not None

    def within(self, key: str) -> "ConfigKeys":
        """The keys of an object; none where it is missing or null."""
        value = self._config.get(key) or {}
        if not isinstance(value, dict):
            raise self._wrong(key, value, "an object")
        return ConfigKeys(value, f"{self._name}: {key}")

    def size(self, key: str, default: int | None = None, *, absent: int | None = None) -> int:
        """A positive integer. `default` stands in for a missing key, `absent` for null or no default."""
        value = self._config.get(key, default)
        if value is None:
            value = absent
        if value is None:
            if key in self._config:
                raise self._wrong(key, None, "a positive integer")
            raise InputError(f"{self._name} lacks the key {key}", "", f"add {key} to the config")
        return self._integer(key, value, least=1)

    def optional_size(self, key: str, default: int | None) -> int | None:
        """A positive integer or null."""
        value = self._config.get(key, default)
        return None if value is None else self._integer(key, value, least=1)

    def count(self, key: str, default: int) -> int:
        """An integer from 0."""
        return self._integer(key, self._config.get(key, default), least=0)

    def flag(self, key: str, default: bool) -> bool:
        """A boolean."""
        value = self._config.get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def fraction(self, key: str, default: float = 0.0, *, absent: float = 0.0) -> float:
        """A number from 0 to below 1. `default` stands in for a missing key, `absent` for null."""
        value = self._config.get(key, default)
        if value is None:
            return absent
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < 1.0:
            raise self._wrong(key, value, "a number from 0 to below 1")
        return float(value)

    def share(self, key: str, default: float) -> float:
        """A number above 0, up to 1."""
        value = self._config.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value <= 1.0:
            raise self._wrong(key, value, "a number above 0, up to 1")
        return float(value)

    def optional_number(self, key: str, default: float | None) -> float | None:
        """A positive number or null."""
        value = self._config.get(key, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0.0:
            raise self._wrong(key, value, "a positive number or null")
        return float(value)

    def texts(self, key: str) -> list[str] | None:
        """A list of strings; None where it is missing or null."""
        value = self._config.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise self._wrong(key, value, "a list of strings")
        return value

    def text(self, key: str, default: str) -> str:
        """A string."""
        value = self._config.get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a string")
        return value

    def _integer(self, key: str, value: object, *, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self._wrong(key, value, "a positive integer" if least else "an integer from 0")
        if value > _LARGEST:
            raise self._wrong(key, value, f"{_LARGEST} at most")
        return value

    def _wrong(self, key: str, value: object, wanted: str) -> InputError:
        return InputError(f"{self._name}: {key} is {described(value)}", f"it should be {wanted}", "")


def described(value: object) -> str:
    """A JSON value as its author would recognise it, on one short line."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
