"""One row per configuration: its bar against the card's capacity, its figures and its verdict."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from estimators.footprint import Footprint
from estimators.verdict import Fit, Verdict
from galore_mem.render import words
from galore_mem.render.bars import Scale, bar, parts_of, scale_for
from galore_mem.render.flow import flow
from galore_mem.render.palette import BOUND, CONTEXT, PARTS
from galore_mem.render.terminal import MEDIUM, Terminal
from galore_mem.render.text import Text

if TYPE_CHECKING:
    from galore_mem.answers.plan import Plan, PlanResult

WIDE = 118
VERDICTS: dict[Verdict, tuple[str, str]] = {
    "fits": ("fits", "bold #009e73"),
    "tight": ("tight", "bold #e69f00"),
    "does-not-fit": ("does not fit", "bold #d55e00"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One configuration as texts."""

    name: Text
    footprint: Footprint
    peak: str
    beside: str
    """The headroom; the upper bound where there is no card to have room on."""
    verdict: Text
    moment: str
    longest: str
    largest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """What stands above the columns that depend on a card."""

    beside: str = "headroom"
    verdict: str = "verdict"
    longest: str = "longest"
    largest: str = "batch"


WITHOUT_CARD = Heads(beside="at most", verdict="", longest="", largest="")


def overview(result: "PlanResult", screen: Terminal) -> list[Text]:
    """The rows and a legend, laid out for the screen's width."""
    rows = [_row(result, plan) for plan in result.plans]
    heads = Heads() if result.cards else WITHOUT_CARD
    draw = _wide if screen.width >= WIDE else _medium if screen.width >= MEDIUM else _narrow
    lines = draw(rows, heads, result, screen)
    return [*lines, Text(), *legend([row.footprint for row in rows], screen), Text()]


def _row(result: "PlanResult", plan: "Plan") -> Row:
    method = plan.workload.method
    name = Text.assemble((method.name, "bold"), words.configuration(method).removeprefix(method.name))
    fit = plan.fits[0] if plan.fits else None
    return Row(
        name=name,
        footprint=plan.footprint,
        peak=words.gib(plan.footprint.process_bytes),
        beside=words.signed_gib(fit.headroom_bytes) if fit else words.gib(plan.footprint.upper_bytes),
        verdict=verdict_of(result, plan),
        moment=words.moment(plan.footprint.peak.label),
        longest=words.limit(fit.max_sequence_length) if fit else "",
        largest=words.limit(fit.max_micro_batch_size) if fit else "",
    )


def verdict_of(result: "PlanResult", plan: "Plan") -> Text:
    """The verdict on the first card, or on the budget, in words and colour."""
    if not result.keeps_budget(plan):
        return Text("over budget", style=VERDICTS["does-not-fit"][1])
    return verdict_text(plan.fits[0]) if plan.fits else Text()


def verdict_text(fit: Fit) -> Text:
    """The verdict in words and colour."""
    word, style = VERDICTS[fit.verdict]
    return Text(word, style=style)


def legend(footprints: list[Footprint], screen: Terminal) -> list[Text]:
    """What the glyphs of these bars mean."""
    used = {part.name for footprint in footprints for part, nbytes in parts_of(footprint) if nbytes > 0}
    text = Text()
    for part in (part for part in (*PARTS, CONTEXT, BOUND) if part.name in used):
        text.append(part.glyph if screen.unicode else part.ascii, style=part.style)
        text.append(f"\u00a0{part.name.replace(' ', chr(0xA0))}  ")
    return [line.replace("\u00a0", " ") for line in flow(text, screen.width)]


def _scale(rows: list[Row], result: "PlanResult", cells: int) -> Scale:
    fits = result.plans[0].fits
    return scale_for([row.footprint for row in rows], fits[0].usable_bytes if fits else result.budget_bytes, cells)


def axis(scale: Scale) -> str:
    """The scale's ends, with the card's capacity above its line."""
    if scale.capacity_bytes is None or scale.capacity_cell is None:
        label = words.gib(scale.full_bytes, 1)
        return f"{'0':<{scale.cells - len(label)}}{label}"
    label = words.gib(scale.capacity_bytes, 1)
    start = min(max(2, scale.capacity_cell - len(label) // 2), scale.cells - len(label))
    return f"{'0':<{start}}{label}".ljust(scale.cells)


def _wide(rows: list[Row], heads: Heads, result: "PlanResult", screen: Terminal) -> list[Text]:
    name = max(len("configuration"), *(row.name.cell_len for row in rows))
    scale = _scale(rows, result, screen.width - name - 73)
    head = (
        f"{'configuration':<{name}}  {axis(scale)}  {'peak':>7} {heads.beside:>8}  "
        f"{heads.verdict:<12}  {'at':<21} {heads.longest:>8} {heads.largest:>6}"
    )
    lines = [Text(head, style="dim")]
    for row in rows:
        line = row.name.copy()
        line.pad_right(name - row.name.cell_len)
        line.append("  ").append_text(bar(row.footprint, scale, unicode=screen.unicode))
        line.append(f"  {row.peak:>7} {row.beside:>8}  ").append_text(_padded(row.verdict, 12))
        line.append(f"  {row.moment:<21}", style="dim").append(f" {row.longest:>8} {row.largest:>6}")
        lines.append(line)
    return lines


def _medium(rows: list[Row], heads: Heads, result: "PlanResult", screen: Terminal) -> list[Text]:
    cells = screen.width - 39
    scale = _scale(rows, result, cells)
    lines = [
        Text(f"{'configuration':<{cells}}   {'peak':>7} {heads.beside:>8}  {heads.verdict:<12}", style="dim"),
        Text(f"{axis(scale)}   {'at':<21}{heads.longest:>9}{heads.largest:>6}", style="dim"),
    ]
    for row in rows:
        first = _padded(row.name, cells).append(f"   {row.peak:>7} {row.beside:>8}  ").append_text(row.verdict)
        second = bar(row.footprint, scale, unicode=screen.unicode)
        second.append(f"   {row.moment:<21}", style="dim").append(f"{row.longest:>9}{row.largest:>6}")
        lines += [first, second]
    return lines


def _narrow(rows: list[Row], heads: Heads, result: "PlanResult", screen: Terminal) -> list[Text]:
    scale = _scale(rows, result, screen.width)
    lines = [Text(axis(scale), style="dim")]
    for row in rows:
        lines += flow(row.name, screen.width, indent=2)
        lines.append(bar(row.footprint, scale, unicode=screen.unicode))
        figures = Text.assemble(
            row.verdict, ", " if row.verdict else "", f"peak {row.peak}, {heads.beside} {row.beside}"
        )
        lines += flow(figures, screen.width, indent=2)
        at = f"at {row.moment}"
        if row.longest not in ("", "-"):
            at += f"; up to {row.longest} tokens or batch {row.largest}"
        lines += flow(Text(at, style="dim"), screen.width, indent=2)
        lines.append(Text())
    return lines[:-1]


def _padded(text: Text, width: int) -> Text:
    padded = text.copy()
    padded.truncate(width)
    padded.pad_right(width - padded.cell_len)
    return padded
