"""What others published, line by line beside ours."""

from collections.abc import Sequence

from estimators.workload import Workload
from galore_mem.answers.plan import PlanResult
from galore_mem.answers.published import Beside
from galore_mem.render import words
from galore_mem.render.flow import flow
from galore_mem.render.terminal import MEDIUM, Terminal
from galore_mem.render.text import Text


def published_lines(result: PlanResult, screen: Terminal) -> list[Text]:
    """One block per configuration that has published figures; no lines where none has."""
    return [line for plan in result.plans for line in published_block(plan.workload, plan.published, screen)]


def published_block(workload: Workload, published: Sequence[Beside], screen: Terminal) -> list[Text]:
    """An empty line, a title and one line for each figure; nothing where there is none."""
    if not published:
        return []
    title = Text.assemble("Published for ", (words.configuration(workload.method), "bold"), ", in GiB")
    differs = dict.fromkeys(word for beside in published for word in beside.differs)
    if differs:
        title.append(f" (theirs ran with {', '.join(differs)})")
    rows = [("", "ours", "theirs", "as printed"), *map(_cells, published)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [Text(), *flow(title, screen.width, indent=2)]
    for row, source in zip(rows, ["by", *map(_source, published)], strict=True):
        cells = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        line = Text(f"{cells}  ", style="" if row[0] else "dim")
        indent = line.cell_len if screen.width >= MEDIUM else 2
        lines += flow(line.append(source, style="dim"), screen.width, indent)
    return lines


def _cells(beside: Beside) -> tuple[str, str, str, str]:
    figure = beside.published
    name = figure.figure.replace("optimizer_states", "states").replace("_", " ")
    theirs = "" if figure.bytes_range is None else _range(*figure.bytes_range)
    return name, words.gib(beside.ours_bytes), theirs, f"{figure.value:,g} {figure.unit}"


def _source(beside: Beside) -> str:
    figure = beside.published
    return figure.source + (", estimated" if figure.kind == "estimated" else "")


def _range(least: float, most: float) -> str:
    """What a printed value may mean in GiB: G is 10^9 or 2^30 bytes."""
    low, high = f"{least / words.GIB:,.2f}", f"{most / words.GIB:,.2f}"
    return low if low == high else f"{low}-{high}"
