"""Sentences broken into lines."""

from galore_mem.render.text import Text


def flow(text: Text, width: int, indent: int = 0) -> list[Text]:
    """`text` in lines of at most `width` cells, broken at spaces; indented ones keep 16 cells at least."""
    indent = max(0, min(indent, width - 16))
    lines, start, room = [], 0, width
    plain = text.plain
    while len(plain) - start > room:
        end = plain.rfind(" ", start, start + room + 1)
        end = start + room if end <= start else end
        lines.append(text[start:end])
        rest = plain[end:]
        start = end + len(rest) - len(rest.lstrip(" "))
        room = width - indent
    lines.append(text[start:])
    return [line if number == 0 else Text(" " * indent).append_text(line) for number, line in enumerate(lines)]
