"""Typed reading of another tool's configuration, keeping account of which keys mattered."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from galore_mem.errors import UsageError

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_LARGEST = 2**31 - 1
_ALIKE = 0.9
"""How much of two keys agrees where one is taken for a slip of the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """A key that changed the plan, or a default that did."""

    key: str
    value: str
    """As the file has it; `default` where the tool's own applies."""
    effect: str
    """What it means for the plan."""


class Keys:
    """A configuration under the name that errors give it; null counts as absent."""

    def __init__(self, content: Mapping[str, Any], name: str) -> None:
        self._content = {key: value for key, value in content.items() if value is not None and value != ""}
        self._all = list(content)
        self._name = name
        self._seen: set[str] = set()
        self.meanings: list[Meaning] = []
        self.notes: list[str] = []

    def __contains__(self, key: str) -> bool:
        """Whether the key has a value."""
        return key in self._content

    @property
    def ignored(self) -> tuple[str, ...]:
        """Keys that nobody asked for: none is known to change memory."""
        return tuple(key for key in self._all if key not in self._seen)

    @property
    def misspelt(self) -> tuple[str, ...]:
        """A note on every ignored key that looks like one which was asked for and is not there."""
        from difflib import get_close_matches

        absent = [key for key in self._seen if key not in self._all]
        near = ((key, get_close_matches(key, absent, n=1, cutoff=_ALIKE)) for key in self.ignored)
        return tuple(f"{self._name}: {key} is no key that is read; {meant[0]} is" for key, meant in near if meant)

    def means(self, key: str, effect: str) -> None:
        """Say what a key, or its default, means for the plan."""
        value = shown(self._content[key]) if key in self._content else "default"
        self.meanings.append(Meaning(key=key, value=value, effect=effect))

    def decides(self, key: str, effect: str, instead_of: str) -> None:
        """Say that a key settles what an earlier one had begun: `--method qlora` instead of `--method lora`."""
        self.meanings = [
            replace(meaning, effect=" ".join(meaning.effect.replace(instead_of, "").split()))
            if instead_of in meaning.effect
            else meaning
            for meaning in self.meanings
        ]
        self.means(key, effect)

    def note(self, sentence: str) -> None:
        """Something that a person should know about how the file was understood."""
        self.notes.append(sentence)

    def refuse(self, key: str, why: str, fix: str = "") -> NoReturn:
        """The run cannot be planned because of this key.

        Raises:
            UsageError: always.
        """
        value = f" is {shown(self._content[key])}" if key in self._content else " is missing"
        raise UsageError(f"{self._name}: {key}{value}", why, fix)

    def raw(self, key: str) -> Any:  # noqa: ANN401
        """The value as it is, None where there is none."""
        self._seen.add(key)
        return self._content.get(key)

    def whole(self, key: str, default: int) -> int:
        """A positive whole number."""
        value = self.raw(key)
        if isinstance(value, str) and value.strip().isdigit():
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.refuse(key, "it should be a positive whole number")
        if value > _LARGEST:
            self.refuse(key, f"it should be {_LARGEST} at most")
        return value

    def number(self, key: str, default: float) -> float:
        """A number."""
        value = self.raw(key)
        if value is None:
            return default
        try:
            return float(value) if not isinstance(value, bool) else self.refuse(key, "it should be a number")
        except (TypeError, ValueError):
            self.refuse(key, "it should be a number")

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        value = self.raw(key)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        known = _WORDS.get(str(value).strip().lower()) if isinstance(value, str | int) else None
        return self.refuse(key, "it should be true or false") if known is None else known

    def text(self, key: str, default: str = "") -> str:
        """A word or a path."""
        value = self.raw(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self.refuse(key, "it should be text" + ", not a list" * isinstance(value, list))
        return str(value).strip()

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of words, or one text with commas."""
        value = self.raw(key)
        if value is None:
            return ()
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            self.refuse(key, "it should be a list of names")
        return tuple(part.strip() for part in parts if part.strip())


def shown(value: object) -> str:
    """A value as its author would recognise it, on one short line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list) and all(isinstance(part, str | int | float) for part in value):
        text = ", ".join(map(str, value))
    elif isinstance(value, dict):
        text = f"{len(value)} keys"
    elif isinstance(value, list):
        text = f"{len(value)} entries"
    else:
        text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
