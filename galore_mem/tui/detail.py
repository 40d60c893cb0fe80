"""The row under the cursor in full: verdict, what would help, moments, the peak, one layer's ledger."""

from estimators.analytic.tensors import Tensors
from estimators.footprint import Footprint
from galore_mem.render import words
from galore_mem.render.flow import flow
from galore_mem.render.plan_advice import advice_lines
from galore_mem.render.plan_detail import ledger_lines, moment_lines
from galore_mem.render.plan_published import published_lines
from galore_mem.render.terminal import MEDIUM, Terminal
from galore_mem.render.text import Text
from galore_mem.tui.drawing import BADGES, PENDING
from galore_mem.tui.explain import Explained
from galore_mem.tui.page import Page

ROOM_FOR_REASONS = 83
"""From this many columns the reason of each term stands beside its figures, else below them."""


class Detail(Page):
    """Why a row holds what it holds."""

    HELP = """
Everything about the row under the cursor on the selected card: its verdict, the cheapest change that would help it,
the moments of the step, what is alive at the peak and what comes on top, and the tensors that one layer keeps for
backward. After a trace, the traced figures stand beside.
"""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.border_title = "detail"
        self._row_name = ""
        self._problem = ""
        self._explained: Explained | None = None
        self._traced: Footprint | None = None

    def await_row(self, name: str, problem: str = "") -> None:
        """Another row is under the cursor, and nothing is known of it yet; or never will be, for a reason."""
        self._row_name, self._problem, self._explained, self._traced = name, problem, None, None
        self.renew()

    def show(self, name: str, explained: Explained, traced: Footprint | None = None) -> None:
        """Show what is known of a row."""
        if self._explained is None or self._explained.key != explained.key:
            self.scroll_home(animate=False)
        self._row_name, self._explained, self._traced = name, explained, traced
        self.renew()

    def lines(self, width: int) -> list[Text]:
        """What to show in `width` cells."""
        if self._explained is None:
            if not self._row_name:
                return [Text("No row is under the cursor.")]
            return [Text(self._row_name, style="bold"), *flow(Text(self._problem or PENDING), width)]
        result, screen = self._explained.result, Terminal(width=width)
        plan = result.plans[0]
        lines = [
            *_headline(self._row_name, self._explained, width),
            *advice_lines(result, screen),
            *(line for note in result.notes for line in flow(Text(f"Note: {note}.", style="dim"), width, indent=2)),
            Text(),
        ]
        if self._traced is not None:
            lines += [*beside(plan.footprint, self._traced), Text()]
        lines += [*moment_lines(plan.footprint, plan.fits[0].usable_bytes, screen), Text()]
        stacked = Terminal(width=min(width, MEDIUM - 1)) if width < ROOM_FOR_REASONS else screen
        lines += [*ledger_lines(plan.footprint, stacked), Text()]
        if self._explained.break_even is not None:
            lines += [*flow(_break_even(self._explained), width, indent=2), Text()]
        lines += [*layer_lines(self._explained.ledger, width), Text()]
        if plan.published:
            lines += published_lines(result, screen)
        return lines


def _headline(name: str, explained: Explained, width: int) -> list[Text]:
    plan = explained.result.plans[0]
    fit = plan.fits[0]
    word, style = BADGES[fit.verdict]
    text = Text.assemble((word, style), " ", (name, "bold"), f" on {fit.gpu.name}: ")
    text.append(f"peak {words.gib(fit.process_bytes)}, at most {words.gib(fit.upper_bytes)}")
    text.append(f" of {words.gib(fit.usable_bytes)} GiB, {words.batch(plan.workload)}, {plan.workload.precision}.")
    return flow(text, width, indent=2)


def _break_even(explained: Explained) -> Text:
    method, rank = explained.result.plans[0].workload.method, explained.break_even
    if not rank:
        return Text(f"At no rank do the states of {method.name} take less than those of adamw-8bit.", style="dim")
    side = "below" if (method.rank or 0) <= rank else "above"
    return Text.assemble(
        "Break-even with adamw-8bit: up to ",
        (f"rank {rank:,}", "bold"),
        f" states and projectors take no more than 8-bit Adam's; rank {method.rank:,} is {side}.",
    )


def layer_lines(ledger: tuple[Tensors, ...], width: int) -> list[Text]:
    """What one layer keeps for backward, largest first."""
    total = sum(entry.exact_bytes for entry in ledger)
    rows = sorted(ledger, key=lambda entry: -entry.exact_bytes)
    names = {id(entry): entry.name + (f" x {entry.count}" if entry.count > 1 else "") for entry in rows}
    label = min(max(30, *map(len, names.values())) + 2, max(18, width - 26))
    lines = [Text(f"{'one layer keeps for backward':<{label}}{'MiB':>9}", style="dim")]
    for entry in rows:
        name, size_mib = names[id(entry)], entry.exact_bytes / 2**20
        short = name if len(name) < label else f"{name[: label - 2]}…"
        line = Text(f"{short:<{label}}{f'{size_mib:,.2f}' if size_mib >= 0.005 else '<0.01':>9}")
        lines.append(line.append(f"  {entry.formula}"[: max(0, width - label - 9)], style="dim"))
    return [*lines, Text(f"{'one layer':<{label}}{total / 2**20:>9,.2f}", style="bold")]


def beside(analytic: Footprint, traced: Footprint) -> list[Text]:
    """Traced figures beside the closed form's."""
    rows = (
        ("live tensors", analytic.peak_live_bytes, traced.peak_live_bytes),
        ("allocated", analytic.peak_allocated_bytes, traced.peak_allocated_bytes),
        ("reserved", analytic.peak_reserved_bytes, traced.peak_reserved_bytes),
        ("process", analytic.process_bytes, traced.process_bytes),
        ("upper bound", analytic.upper_bytes, traced.upper_bytes),
    )
    lines = [Text(f"{'peak, GiB':<24}{'analytic':>9}{traced.source:>9}{'diff':>9}", style="dim")]
    for name, ours, theirs in rows:
        figures = f"{words.gib(ours):>9}{words.gib(theirs):>9}{words.signed_gib(theirs - ours):>9}"
        lines.append(Text(f"{name:<24}{figures}", style="bold" if name == "process" else ""))
    return [
        *lines,
        Text(f"at {words.moment(analytic.peak.label)}; traced at {words.moment(traced.peak.label)}", style="dim"),
    ]
