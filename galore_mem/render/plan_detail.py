"""One configuration in full: its moments, what is alive at the peak, and what stands between that and the bound."""

from estimators.footprint import Footprint, Moment
from galore_mem.answers.plan import PlanResult
from galore_mem.render import words
from galore_mem.render.alive import SHOWN_BYTES, parts_alive
from galore_mem.render.bars import Scale, bar, moment_bar, scale_for
from galore_mem.render.flow import flow
from galore_mem.render.plan_overview import axis, legend, verdict_of
from galore_mem.render.terminal import MEDIUM, Terminal
from galore_mem.render.text import Text

LABEL = 24
"""Cells of the first column."""


def detail(result: PlanResult, screen: Terminal) -> list[Text]:
    """Everything that is known about the one plan of `result`."""
    plan = result.plans[0]
    capacity = plan.fits[0].usable_bytes if plan.fits else result.budget_bytes
    scale = scale_for([plan.footprint], capacity, screen.width)
    return [
        *flow(_verdict(result), screen.width, indent=2),
        Text(axis(scale), style="dim"),
        bar(plan.footprint, scale, unicode=screen.unicode),
        Text(),
        *legend([plan.footprint], screen),
        Text(),
        *moment_lines(plan.footprint, capacity, screen),
        Text(),
        *ledger_lines(plan.footprint, screen),
        Text(),
    ]


def _verdict(result: PlanResult) -> Text:
    plan = result.plans[0]
    text = Text(words.configuration(plan.workload.method), style="bold")
    text = Text.assemble(text, ": ", verdict_of(result, plan))
    if plan.fits or not result.keeps_budget(plan):
        text.append(", ")
    text.append(f"peak {words.gib(plan.footprint.process_bytes)}, at most {words.gib(plan.footprint.upper_bytes)}")
    if plan.fits:
        text.append(f" of {words.gib(plan.fits[0].usable_bytes)} GiB")
    return text


def moment_lines(footprint: Footprint, capacity: int | None, screen: Terminal) -> list[Text]:
    """Live bytes of every moment, in a first and in a steady iteration."""
    names = words.in_step_order(moment.name for moment in footprint.moments)
    found = {(moment.iteration, moment.name): moment for moment in footprint.moments}
    cells = screen.width - LABEL - 18
    largest = footprint.peak_live_bytes
    scale = Scale(cells=cells, full_bytes=max(largest, min(capacity or 0, largest * 5 // 4)), capacity_bytes=capacity)
    head = f"{'live at each moment':<{LABEL}}{'first':>7} {'steady':>7}"
    lines = [Text(head, style="dim")]
    for name in names:
        pair = [found.get(("first", name)), found.get(("steady", name))]
        shown = max((moment for moment in pair if moment), key=lambda moment: moment.live_bytes)
        role = "bold" if name == footprint.peak.name else ""
        line = Text(f"{words.moment(name):<{LABEL}}", style=role)
        for moment in pair:
            is_peak = moment is not None and moment.label == footprint.peak.label
            figure = words.gib(moment.live_bytes) if moment else "-"
            line.append(f"{figure:>7} ", style="bold" if is_peak else "not bold")
        if screen.width >= MEDIUM:
            line.append("  ").append_text(moment_bar(shown, scale, unicode=screen.unicode))
        lines.append(line)
    return [*lines, *flow(_who_wins(footprint.peak, footprint.runner_up), screen.width, indent=2)]


def _who_wins(peak: Moment, runner_up: Moment) -> Text:
    ahead = words.gib(peak.live_bytes - runner_up.live_bytes)
    above = "less than 0.01" if ahead == "0.00" else ahead
    return Text(
        f"The {words.moment(peak.label)} wins, {above} above the {words.moment(runner_up.label)}.",
        style="dim",
    )


def ledger_lines(footprint: Footprint, screen: Terminal) -> list[Text]:
    """From the largest category up to the bound of what nvidia-smi will show."""
    live = footprint.peak_live_bytes
    lines = [Text(f"{'alive at the peak':<{LABEL}}{'GiB':>7}", style="dim")]
    shown, small = parts_alive(footprint.peak.by_category)
    for part, nbytes, of_which in shown:
        glyph = part.glyph if screen.unicode else part.ascii
        line = Text.assemble((glyph, part.style), f" {part.name:<{LABEL - 2}}{words.gib(nbytes):>7}")
        line.append(f"  {nbytes / live:>5.1%}", style="dim")
        if of_which and line.cell_len + 2 + len(of_which) > screen.width:
            lines += [line, *flow(Text(f"    {of_which}", style="dim"), screen.width, indent=4)]
        else:
            lines.append(line.append(f"  {of_which}" if of_which else "", style="dim"))
    if small:
        lines += flow(Text(f"  less than 0.01: {small}", style="dim"), screen.width, indent=4)
    lines.append(_total("live tensors", words.gib(live), ""))
    lines.append(Text(f"{'and beyond':<{LABEL}}{'likely':>7} {'at most':>7}", style="dim"))
    for term in footprint.terms:
        if term.high_bytes < SHOWN_BYTES:
            continue
        line = Text(f"{_cut(term.name):<{LABEL}}{words.gib(term.low_bytes):>7} {words.gib(term.high_bytes):>7}")
        if screen.width >= MEDIUM:
            line.append("  ")
            lines += flow(line.append(term.reason, style="dim"), screen.width, LABEL + 17)
        else:
            lines += [line, *flow(Text(f"  {term.reason}", style="dim"), screen.width, indent=2)]
    lines.append(_total("process", words.gib(footprint.process_bytes), words.gib(footprint.upper_bytes)))
    return lines


def _total(name: str, low: str, high: str) -> Text:
    return Text(f"{name:<{LABEL}}{low:>7} {high:>7}".rstrip(), style="bold")


def _cut(name: str) -> str:
    return name if len(name) < LABEL else f"{name[: LABEL - 2]}."
