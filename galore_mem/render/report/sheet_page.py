"""The page of an answer that came without its history: the verdict and tables; no timeline."""

import dataclasses
from collections.abc import Mapping, Sequence

from galore_mem.answers.report.sheet import PEAKS, Sheet, SheetFit, SheetMoment, SheetSide, sides_compared
from galore_mem.render.report import frame
from galore_mem.render.report.colours import STACK
from galore_mem.render.report.embed import json_in_html
from galore_mem.render.report.sections import pairs_of, section
from galore_mem.render.report.tables import comparison, in_stack_order, moment_rows, swatch, table
from galore_mem.render.report.text import escaped, signed_size, size, words
from galore_mem.render.report.verdict import ICONS, tile
from galore_mem.render.words import in_step_order

_NOTES = {
    "live": "tensors, in blocks of 512 B",
    "allocated": "torch.cuda.max_memory_allocated",
    "reserved": "torch.cuda.max_memory_reserved",
    "process": "nvidia-smi",
}
_GROUPS = ("workload", "environment")
"""Facts whose names say enough without their group."""
_HINT = (
    "This file is an answer without its history: write one with <code>--tape</code> for the timeline, the tensors and "
    "the segments."
)


_TITLES = {
    "peaks": ("peak", "Peaks"),
    "categories": ("category", "Categories, each side at its own live peak"),
    "moments": ("moment", "Moments"),
}
_ORDERS = {"categories": in_stack_order, "moments": moment_rows}


def sheet_html(sheets: Sequence[Sheet]) -> str:
    """The page of one answer, or of two side by side."""
    first = sheets[0]
    found = first.found.name
    parts = [
        ("differences", "Differences", "What differs", _compared(*sheets) if len(sheets) == 2 else "", ""),
        ("moments", "Moments", "Live bytes at every moment", _moments(first.found.moments), _HINT),
        *(
            (
                f"predicted-{number}",
                side.name.capitalize(),
                f"Predicted ({side.name}) against {found}",
                _sides(side, first.found),
                "",
            )
            for number, side in enumerate(first.predictions)
        ),
        ("tensors", "Tensors", "The largest tensors alive at the peak", _largest(first), ""),
        ("what-if", "What if", "The same history under other settings", _what_ifs(first), ""),
        ("run", "Run", "The run and its environment", _about(first), ""),
    ]
    content = [
        (ident, name, section(ident, escaped(title), body, lead)) for ident, name, title, body, lead in parts if body
    ]
    subtitle = _told(first) if len(sheets) == 1 else f"compared with {sheets[1].title}"
    return frame.whole(first.title, subtitle, "".join(map(_banner, sheets)), content, _tail(first))


def _told(sheet: Sheet) -> str:
    """Batch, precision and source, as far as the answer has them."""
    workload = sheet.facts.get("workload")
    workload = workload if isinstance(workload, Mapping) else {}
    batch = workload.get("batch")
    sizes = [batch.get(key) for key in ("micro_batch_size", "sequence_length")] if isinstance(batch, Mapping) else []
    parts = [f"{sizes[0]:,} x {sizes[1]:,} tokens"] if [type(size) for size in sizes] == [int, int] else []
    parts += [str(workload["precision"])] if isinstance(workload.get("precision"), str) else []
    kind = "a record of galore-mem validate" if sheet.kind == "record" else f"the answer of galore-mem {sheet.kind}"
    return " · ".join([*parts, f"{words(sheet.found.name)} run", kind])


def _largest(sheet: Sheet) -> str:
    rows = [
        (size(nbytes), swatch(category), escaped(module or "-"), escaped(operator))
        for nbytes, category, module, operator in sheet.largest
    ]
    return table(("size", "category", "module", "made by"), rows, numbers=(0,)) if rows else ""


def _what_ifs(sheet: Sheet) -> str:
    base = sheet.found.peaks.get("reserved", 0)
    rows = [
        (f"<code>{escaped(settings or 'defaults')}</code>", size(nbytes), signed_size(nbytes - base))
        for settings, nbytes in sheet.what_ifs
    ]
    head = ("allocator settings", "reserved", "against the answer")
    return table(head, rows, numbers=(1, 2), kind="stacked") if rows else ""


def _about(sheet: Sheet) -> str:
    own = {key: value for key, value in sheet.facts.items() if key not in _GROUPS}
    groups = (pairs_of(sheet.facts.get(key)) for key in _GROUPS)
    pairs = [("file", sheet.name), *pairs_of(own), *(pair for group in groups for pair in group)]
    facts = [(escaped(key), escaped(value)) for key, value in pairs]
    notes = "".join(f"<li>{escaped(note)}</li>" for note in sheet.notes)
    save = '<p><button type="button" class="download">The answer as JSON</button></p>'
    return save + (f'<ul class="notes">{notes}</ul>' if notes else "") + table(("what", "value"), facts)


def _tail(sheet: Sheet) -> str:
    return f'<script type="application/json" id="raw">{json_in_html(sheet.raw)}</script>' + frame.script(
        "choose.js", "sheet.js"
    )


def _banner(sheet: Sheet) -> str:
    peaks = sheet.found.peaks
    fits = sheet.fits
    kind = fits[0].verdict if fits else "unknown"
    process = peaks.get("process", peaks.get("reserved", 0))
    title = _fit_title(fits[0]) if fits else f"Needs {size(process)}"
    detail = "".join(f"<p>{escaped(_fit_detail(fit, process))}</p>" for fit in fits)
    top = max(sheet.found.moments, key=lambda each: (each.live_bytes, each.label.startswith("steady")), default=None)
    why = f'<p class="why">Live tensors peak at {escaped(words(top.label))}.</p>' if top else ""
    tiles = "".join(tile(name, peaks[name], _NOTES[name]) for name in PEAKS if name in peaks)
    return (
        f'<section class="banner {escaped(kind)}" aria-label="Verdict"><div class="verdict"><span class="icon" '
        f'aria-hidden="true">{ICONS[kind]}</span><div><h2>{escaped(title)}</h2>{detail}{why}</div></div>'
        f'<dl class="tiles">{tiles}</dl></section>'
    )


def _fit_title(fit: SheetFit) -> str:
    return {"fits": "Fits on", "tight": "Tight on", "does-not-fit": "Does not fit on"}[fit.verdict] + f" {fit.gpu}"


def _fit_detail(fit: SheetFit, process: int) -> str:
    rest = {
        "fits": f"{size(fit.usable_bytes - fit.upper_bytes)} to spare",
        "tight": f"the bound is {size(fit.upper_bytes - fit.usable_bytes)} above it",
        "does-not-fit": f"{size(process - fit.usable_bytes)} too much",
    }[fit.verdict]
    return (
        f"{fit.gpu}: {size(process)} in the process, {size(fit.upper_bytes)} at most; torch can use "
        f"{size(fit.usable_bytes)}: {rest}."
    )


def _moments(moments: Sequence[SheetMoment]) -> str:
    most = max((moment.live_bytes for moment in moments), default=0)
    if not most:
        return ""
    rows = []
    by_label = {moment.label: moment for moment in moments}
    for moment in map(by_label.__getitem__, in_step_order(by_label)):
        pieces = "".join(
            f'<i data-category="{name}" style="width:{100 * moment.by_category[name] / most:.3f}%" '
            f'title="{escaped(words(name))}: {size(moment.by_category[name])}"></i>'
            for name in STACK
            if moment.by_category.get(name)
        )
        label = escaped(words(moment.label))
        rows.append(
            (
                f"<b>{label}</b>" if moment.live_bytes == most else label,
                size(moment.live_bytes),
                f'<span class="stack">{pieces}</span>',
            )
        )
    used = [name for name in STACK if any(moment.by_category.get(name) for moment in moments)]
    key = "".join(f"<span>{swatch(name)}</span>" for name in used)
    return table(("moment", "live", ""), rows, numbers=(1,)) + f'<div class="key">{key}</div>'


def _compared(first: Sheet, second: Sheet) -> str:
    return _sides(
        dataclasses.replace(first.found, name=first.name), dataclasses.replace(second.found, name=second.name)
    )


def _sides(first: SheetSide, second: SheetSide) -> str:
    return "".join(
        f"<h3>{_TITLES[kind][1]}</h3>"
        + comparison(
            _ORDERS.get(kind, tuple)(rows),
            (_TITLES[kind][0], first.name, second.name),
            caption=_TITLES[kind][1],
            with_swatches=kind == "categories",
        )
        for kind, rows in sides_compared(first, second).items()
        if rows
    )
