"""A comparison as one page of words, tables and bars: no script draws it, and it is as wide as its reader's screen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from estimators.verdict import Fit
from galore_mem.render import words
from galore_mem.render.palette import BOUND, CONTEXT, PARTS, Part, shares
from galore_mem.render.report import frame
from galore_mem.render.report.sections import section
from galore_mem.render.report.tables import table
from galore_mem.render.report.text import MINUS, escaped

_WORDS = {"fits": "fits", "tight": "tight", "does-not-fit": "does not fit"}
_LEAD = (
    "GiB (1024<sup>3</sup> bytes) of the process at its peak: the tensors that live then, cached memory and the CUDA "
    "context on top, and up to the bound what may come. The line is what torch can use of {card}."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One configuration, planned or laid beside."""

    label: str
    by_category: Mapping[str, int]
    """Live bytes at the peak."""
    process_bytes: int
    upper_bytes: int
    moment: str
    fits: tuple[Fit, ...]
    """On every card that can run it; empty for what was only laid beside."""


def comparison_html(title: str, bars: Sequence[Bar], card: str, usable_bytes: int, notes: Sequence[str]) -> str:
    """The page.

    Args:
        title: what is compared.
        bars: at least one.
        card: whose line is drawn.
        usable_bytes: of that card.
        notes: what there is to know of the plans.
    """
    told = "".join(f"<li>{escaped(note)}</li>" for note in notes)
    parts = [
        ("comparison", "Peaks", "Memory at the peak of a training step", _bars(bars, card, usable_bytes)),
        ("cards", "Cards", "On every card", _cards(bars)),
        ("parts", "Parts", "What the process consists of at its peak, GiB", _parts(bars)),
        ("notes", "Notes", "Notes", f'<ul class="notes">{told}</ul>' if told else ""),
    ]
    lead = {"comparison": _LEAD.format(card=escaped(card)), "cards": "Headroom under the upper bound, in GiB."}
    content = [
        (ident, name, section(ident, head, body, lead.get(ident, ""))) for ident, name, head, body in parts if body
    ]
    many = "configurations" if len(bars) != 1 else "configuration"
    subtitle = f"{len(bars)} {many} on {card}, {words.gib(usable_bytes)} GiB usable"
    return frame.whole(title, subtitle, "", content, frame.script("choose.js", "sheet.js"))


def _bars(bars: Sequence[Bar], card: str, usable_bytes: int) -> str:
    scale = max(usable_bytes, *(bar.upper_bytes for bar in bars))
    used = {part.name for bar in bars for part, _ in shares(bar.by_category)}
    drawn = [part for part in PARTS if part.name in used]
    items = "".join(f"<li>{_words(bar, card)}{_track(bar, usable_bytes, scale)}</li>" for bar in bars)
    key = "".join(f"<span>{_mark(part)}{escaped(part.name)}</span>" for part in (*drawn, CONTEXT, BOUND))
    line = f'<span><i class="line"></i>{escaped(card)}, {words.gib(usable_bytes)} GiB</span>'
    return f'<ol class="bars meter">{items}</ol><div class="key meter">{key}{line}</div>'


def _words(bar: Bar, card: str) -> str:
    fit = next((fit for fit in bar.fits if fit.gpu.name == card), None)
    verdict = "" if fit is None else f'<b class="{fit.verdict}">{_WORDS[fit.verdict]}</b>'
    figures = f"{words.gib(bar.process_bytes)} GiB"
    if bar.upper_bytes > bar.process_bytes:
        figures += f", at most {words.gib(bar.upper_bytes)}"
    at = f", {words.moment(bar.moment)}" if bar.moment else ""
    return f"<p><b>{escaped(bar.label)}</b> {verdict}<span>{escaped(figures + at)}</span></p>"


def _track(bar: Bar, usable_bytes: int, scale: int) -> str:
    live = sum(bar.by_category.values())
    pieces = [(_kind(part), part.name, nbytes) for part, nbytes in shares(bar.by_category)]
    pieces.append((_kind(CONTEXT), CONTEXT.name, bar.process_bytes - live))
    pieces.append((_kind(BOUND), BOUND.name, bar.upper_bytes - bar.process_bytes))
    drawn = "".join(
        f'<i {kind} style="width:{100 * nbytes / scale:.3f}%" title="{escaped(name)}: {words.gib(nbytes)} GiB"></i>'
        for kind, name, nbytes in pieces
        if nbytes > 0
    )
    return f'<div class="track">{drawn}<b class="limit" style="left:{100 * usable_bytes / scale:.3f}%"></b></div>'


def _kind(part: Part) -> str:
    if part is CONTEXT:
        return 'class="context"'
    return 'class="bound"' if part is BOUND else f'data-category="{part.categories[0]}"'


def _mark(part: Part) -> str:
    return f"<i {_kind(part)}></i>"


def _cards(bars: Sequence[Bar]) -> str:
    names = list(dict.fromkeys(fit.gpu.name for bar in bars for fit in bar.fits))
    rows = []
    for bar in bars:
        found = {fit.gpu.name: fit for fit in bar.fits}
        if found:
            rows.append((escaped(bar.label), *(_cell(found.get(name)) for name in names)))
    return table(("configuration", *names), rows, numbers=range(1, len(names) + 1)) if rows else ""


def _cell(fit: Fit | None) -> str:
    if fit is None:
        return "cannot run"
    headroom = words.signed_gib(fit.headroom_bytes).replace("-", MINUS)
    return f'<span class="{fit.verdict}"><b>{_WORDS[fit.verdict]}</b> {headroom}</span>'


def _parts(bars: Sequence[Bar]) -> str:
    used = {part.name for bar in bars for part, _ in shares(bar.by_category)}
    drawn = [part for part in PARTS if part.name in used]
    rows = []
    for bar in bars:
        found = {part.name: nbytes for part, nbytes in shares(bar.by_category)}
        live = sum(bar.by_category.values())
        cells = [words.gib(found.get(part.name, 0)) for part in drawn]
        beyond = (bar.process_bytes - live, bar.process_bytes, bar.upper_bytes)
        rows.append((escaped(bar.label), *cells, *map(words.gib, beyond)))
    head = ("configuration", *(part.name for part in drawn), CONTEXT.name, "process", "upper bound")
    return table(head, rows, numbers=range(1, len(head)))
