"""What panes and workers tell the app: immutable, and the only way they change anything."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from textual.message import Message

from galore_mem.tui.figures import Figure, Place

Severity = Literal["information", "warning", "error"]


class Changed(Message):
    """A person wants other values in the state."""

    def __init__(self, **words: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.words = words


class Chosen(Message):
    """A person chose values for one setting."""

    def __init__(self, setting: str, values: tuple[Any, ...]) -> None:
        super().__init__()
        self.setting = setting
        self.values = values


class Moved(Message):
    """The cursor is on another row."""

    def __init__(self, slot: str) -> None:
        super().__init__()
        self.slot = slot


@dataclass
class Computed(Message):
    """A worker's figures."""

    found: tuple[tuple[Place, Figure], ...]


@dataclass
class Said(Message):
    """One line for a person."""

    text: str
    severity: Severity = "information"


@dataclass
class Opened(Message):
    """A file that a person named, to be laid beside."""

    path: Path


class Asked(Message):
    """A pane has drawn figures that nobody knows yet."""
