"""Lines of styled text.

A small part of rich's `Text`, under the same names: importing and using rich took a sixth of the whole process of a
plan, which is drawn in plain lines. A style is words: `bold`, `dim`, `not bold`, `#0072b2`, `on #00466e`.
"""

from unicodedata import east_asian_width

Run = tuple[str, str]
"""Characters, and their style on top of the line's."""


class Text:
    """Characters with styles, to be put together piece by piece."""

    __slots__ = ("runs", "style")

    def __init__(self, plain: str = "", style: str = "") -> None:
        self.runs: list[Run] = [(plain, "")] if plain else []
        self.style = style
        """What all runs build on."""

    @classmethod
    def assemble(cls, *parts: "str | Run | Text") -> "Text":
        """One line of strings, of strings with a style, and of other lines."""
        text = cls()
        for part in parts:
            if isinstance(part, tuple):
                text.append(*part)
            else:
                text.append(part)
        return text

    @property
    def plain(self) -> str:
        """The characters alone."""
        return "".join(characters for characters, _ in self.runs)

    @property
    def cell_len(self) -> int:
        """Columns that the line takes in a terminal."""
        return len(self) + sum(east_asian_width(character) in "WF" for character in self.plain if character > "\u10ff")

    def __len__(self) -> int:
        return sum(len(characters) for characters, _ in self.runs)

    def __getitem__(self, place: slice) -> "Text":
        start, stop, _ = place.indices(len(self))
        part, position = Text(style=self.style), 0
        for characters, style in self.runs:
            part.append(characters[max(0, start - position) : max(0, stop - position)], style)
            position += len(characters)
        return part

    def append(self, more: "str | Text", style: str = "") -> "Text":
        """Add characters or another line at the end; returns this line."""
        if isinstance(more, Text):
            self.runs += [(characters, f"{more.style} {own}".strip()) for characters, own in more.runs]
        elif more:
            self.runs.append((more, style))
        return self

    append_text = append

    def copy(self) -> "Text":
        """A line of its own with the same content."""
        return self[:]

    def pad_right(self, count: int) -> "Text":
        """Add blanks at the end."""
        return self.append(" " * count)

    def truncate(self, width: int) -> None:
        """Drop what is beyond `width` columns."""
        self.runs = self[:width].runs

    def rstrip(self) -> None:
        """Drop blanks at the end."""
        self.truncate(len(self.plain.rstrip()))

    def replace(self, old: str, new: str) -> "Text":
        """The same line with other characters in it."""
        text = Text(style=self.style)
        text.runs = [(characters.replace(old, new), style) for characters, style in self.runs]
        return text
