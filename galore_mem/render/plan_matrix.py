"""Several cards: configurations against cards, with the verdict and the headroom where they meet."""

from collections.abc import Iterator, Sequence

from estimators.verdict import Fit, Verdict
from galore_mem.answers.plan import PlanResult
from galore_mem.render import words
from galore_mem.render.flow import flow
from galore_mem.render.plan_overview import VERDICTS
from galore_mem.render.terminal import Terminal
from galore_mem.render.text import Text

SHORT: dict[Verdict, str] = {"fits": "fits", "tight": "tight", "does-not-fit": "over"}
CELL = 14
"""Cells of one verdict with its headroom: `over -1,046.13`."""


def matrix(result: PlanResult, screen: Terminal) -> list[Text]:
    """One row per configuration and one column per card, in as many tables as the width asks for."""
    names = [words.configuration(plan.workload.method) for plan in result.plans]
    label = max(map(len, names))
    if screen.width < label + CELL + 2:
        label = len("usable GiB")
    lines: list[Text] = []
    for block in _blocks(result, screen.width - label):
        widths = [max(CELL, len(result.cards[index].gpu.name)) for index in block]
        lines.append(_head("", [result.cards[index].gpu.name for index in block], label, widths))
        usable = [words.gib(result.plans[0].fits[index].usable_bytes) for index in block]
        lines.append(_head("usable GiB", usable, label, widths))
        for name, plan in zip(names, result.plans, strict=True):
            line = Text().append(f"{name:<{label}}", style="bold")
            if len(name) > label:
                lines.append(line)
                line = Text(" " * label)
            for index, width in zip(block, widths, strict=True):
                cell = _cell(plan.fits[index])
                line.append(" " * (width - cell.cell_len + 2)).append_text(cell)
            lines.append(line)
        lines.append(Text())
    note = "Behind each verdict the headroom: what stays free, or is missing, when the upper bound comes true."
    return [*lines, *flow(Text(note, style="dim"), screen.width), Text()]


def _blocks(result: PlanResult, room: int) -> Iterator[list[int]]:
    """Indices of cards that fit side by side."""
    block: list[int] = []
    used = 0
    for index, card in enumerate(result.cards):
        width = max(CELL, len(card.gpu.name)) + 2
        if block and used + width > room:
            yield block
            block, used = [], 0
        block.append(index)
        used += width
    yield block


def _head(name: str, cells: Sequence[str], label: int, widths: Sequence[int]) -> Text:
    columns = "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return Text(f"{name:<{label}}{columns}", style="dim")


def _cell(fit: Fit) -> Text:
    _, style = VERDICTS[fit.verdict]
    return Text.assemble((SHORT[fit.verdict], style), f" {words.signed_gib(fit.headroom_bytes):>8}")
