"""Tables of the page that need no script."""

from collections.abc import Iterable, Sequence

from galore_mem.answers.report.expected import Compared
from galore_mem.render.report.colours import STACK
from galore_mem.render.report.text import MINUS, escaped, signed_size, size, words
from galore_mem.render.words import in_step_order

_LEAST_SCALE = 0.02
"""Bars of differences end at this share of the largest figure or beyond, so that small ones look small."""


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Sequence[int] = (),
    caption: str = "",
    kind: str = "",
) -> str:
    """A table of cells that are HTML already.

    Args:
        head: titles.
        rows: cells.
        numbers: columns that are set flush right.
        caption: read out before the table, and not shown.
        kind: how it is laid out on a phone: `stacked` cells below each other, or `compared` figures without their bars.
    """
    flush = [' class="n"' if column in numbers else "" for column in range(len(head))]
    named = [f' data-title="{escaped(title)}"' if kind == "stacked" else "" for title in head]
    cells = ["".join(parts) for parts in zip(flush, named, strict=True)]
    titles = [escaped(title).replace(".", ".<wbr>") for title in head]
    top = "".join(f'<th scope="col"{each}>{title}</th>' for title, each in zip(titles, flush, strict=True))
    inner = ("".join(f"<td{each}>{cell}</td>" for cell, each in zip(row, cells, strict=True)) for row in rows)
    body = "".join(f"<tr>{row}</tr>" for row in inner)
    said = f"<caption>{escaped(caption)}</caption>" if caption else ""
    look = f' class="{kind}"' if kind else ""
    return f'<div class="scroll"><table{look}>{said}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def swatch(category: str) -> str:
    """A category's colour, and its name."""
    return (
        f'<span class="kind"><i class="swatch" data-category="{escaped(category)}"></i>'
        f"<span>{escaped(words(category))}</span></span>"
    )


def comparison(
    rows: Sequence[Compared], head: tuple[str, str, str], *, caption: str, with_swatches: bool = False
) -> str:
    """Two figures a row, and their difference as a number and as a bar."""
    largest = max((abs(row.difference_bytes) for row in rows), default=0)
    figure = max((max(row.expected_bytes, row.found_bytes) for row in rows), default=0)
    scale = max(largest, round(figure * _LEAST_SCALE))
    return table(
        (*head, "difference", ""),
        (
            (
                swatch(row.name) if with_swatches else escaped(words(row.name)),
                size(row.expected_bytes),
                size(row.found_bytes),
                f"{signed_size(row.difference_bytes)}{_share(row)}",
                difference_bar(row.difference_bytes, scale),
            )
            for row in rows
        ),
        numbers=(1, 2, 3),
        caption=caption,
        kind="compared",
    )


def in_stack_order(rows: Iterable[Compared]) -> tuple[Compared, ...]:
    """Categories from the bottom of the timeline to its top."""
    ranks = {name: rank for rank, name in enumerate(STACK)}
    return tuple(sorted(rows, key=lambda row: ranks.get(row.name, len(ranks))))


def moment_rows(rows: Iterable[Compared]) -> tuple[Compared, ...]:
    """Moments as they follow each other."""
    named = {row.name: row for row in rows}
    return tuple(named[name] for name in in_step_order(named))


def _share(row: Compared) -> str:
    if not row.expected_bytes or not row.difference_bytes:
        return ""
    share = row.difference_bytes / row.expected_bytes
    text = f"{share:+.1%}".replace("-", MINUS) if abs(share) >= 0.0005 else "<0.1%"
    return f" <small>{escaped(text)}</small>"


def difference_bar(nbytes: int, scale: int) -> str:
    """More to the right, less to the left of the middle, where nothing stands for no difference."""
    if not nbytes or not scale:
        return '<span class="diff"></span>'
    width = 50 * abs(nbytes) / scale
    side = "left:50%" if nbytes >= 0 else f"left:{50 - width:.2f}%"
    kind = "more" if nbytes >= 0 else "less"
    return f'<span class="diff"><i class="{kind}" style="{side};width:{width:.2f}%"></i></span>'
