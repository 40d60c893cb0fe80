"""A run that was written down for another tool."""

from dataclasses import dataclass
from typing import Any

from galore_mem.answers.settings import Settings
from galore_mem.answers.written.keys import Keys, Meaning


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenRun:
    """What a file asks for, as its tool would run it."""

    file: str
    tool: str
    model: str | None
    """None where the file names none."""
    method: str
    settings: Settings
    has_sequence_length: bool
    """The file, or its tool's default, says how long sequences are."""
    meanings: tuple[Meaning, ...]
    """Keys and defaults that mattered."""
    ignored: tuple[str, ...]
    """Keys that change no memory that a plan knows."""
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The `from` object of the JSON output."""
        return {
            "file": self.file,
            "tool": self.tool,
            "model": self.model,
            "mattered": {meaning.key: {"value": meaning.value, "effect": meaning.effect} for meaning in self.meanings},
            "ignored": list(self.ignored),
        }


def written_run(keys: Keys, *, file: str, tool: str, model: str, method: str, words: dict[str, Any]) -> WrittenRun:
    """The run from what a reader found.

    Args:
        keys: the configuration, read.
        file: where it lies.
        tool: whose it is.
        model: the model's name or path; empty where there is none.
        method: a training method.
        words: fields of `Settings`; `seq` only where it is known.

    Raises:
        InputError: a value that no run can have.
    """
    return WrittenRun(
        file=file,
        tool=tool,
        model=model or None,
        method=method,
        settings=Settings(**words),
        has_sequence_length="seq" in words,
        meanings=tuple(keys.meanings),
        ignored=keys.ignored,
        notes=(*keys.misspelt, *keys.notes),
    )
