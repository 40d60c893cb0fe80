"""Curves in a terminal: braille dots, eight to a cell, one colour per cell."""

from galore_mem.render.text import Text

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a braille cell by row and column of its dots."""


class Canvas:
    """A grid of `columns` x `rows` cells, each of 2 x 4 dots; (0, 0) is the dot at the bottom left."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns = columns
        self.rows = rows
        self._bits = [[0] * columns for _ in range(rows)]
        self._styles = [[""] * columns for _ in range(rows)]
        self._put: dict[tuple[int, int], tuple[str, str]] = {}

    @property
    def width(self) -> int:
        """Dots in a line."""
        return self.columns * 2

    @property
    def height(self) -> int:
        """Dots in a column."""
        return self.rows * 4

    def dot(self, x: int, y: int, style: str) -> None:
        """Set one dot; those outside are left out."""
        if 0 <= x < self.width and 0 <= y < self.height:
            row, line = divmod(self.height - 1 - y, 4)
            self._bits[row][x // 2] |= _DOTS[line][x % 2]
            self._styles[row][x // 2] = style

    def line(self, start: tuple[int, int], end: tuple[int, int], style: str) -> None:
        """A straight line of dots."""
        (x, y), (x_end, y_end) = start, end
        steps = max(abs(x_end - x), abs(y_end - y), 1)
        for step in range(steps + 1):
            self.dot(x + round((x_end - x) * step / steps), y + round((y_end - y) * step / steps), style)

    def across(self, y: int, glyph: str, style: str) -> None:
        """A horizontal line of glyphs where no curve is."""
        row = (self.height - 1 - y) // 4
        if 0 <= row < self.rows:
            for column in range(self.columns):
                if not self._bits[row][column]:
                    self._put.setdefault((row, column), (glyph, style))

    def upright(self, x: int, glyph: str, style: str) -> None:
        """A vertical line of glyphs where no curve is."""
        column = x // 2
        if 0 <= column < self.columns:
            for row in range(self.rows):
                if not self._bits[row][column]:
                    self._put.setdefault((row, column), (glyph, style))

    def put(self, x: int, y: int, glyph: str, style: str) -> None:
        """A glyph in place of a cell."""
        if 0 <= x < self.width and 0 <= y < self.height:
            self._put[(self.height - 1 - y) // 4, x // 2] = (glyph, style)

    def lines(self) -> list[Text]:
        """The rows, top first."""
        drawn = []
        for row in range(self.rows):
            text = Text()
            for column in range(self.columns):
                glyph, style = self._put.get((row, column), ("", ""))
                bits = self._bits[row][column]
                if not glyph:
                    glyph, style = (chr(0x2800 + bits), self._styles[row][column]) if bits else (" ", "")
                if text.runs and text.runs[-1][1] == style:
                    text.runs[-1] = (text.runs[-1][0] + glyph, style)
                else:
                    text.append(glyph, style=style)
            drawn.append(text)
        return drawn
