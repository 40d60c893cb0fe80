"""The verdict in words, and the numbers beside it."""

from dataclasses import dataclass

from galore_mem.answers.report.figures import Verdict
from galore_mem.answers.report.run import RunReport
from galore_mem.render.report.text import escaped, size, words
from galore_mem.render.words import SMALLEST_CARD

ICONS = {"fits": "✓", "tight": "!", "does-not-fit": "✕", "out-of-memory": "✕", "unknown": "i"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """What a verdict says."""

    kind: str
    title: str
    detail: str


def sentence(run: RunReport, verdict: Verdict) -> Sentence:
    """One verdict in words."""
    figures = run.figures
    need = f"{size(figures.process_bytes)} is what the process would show, {size(figures.upper_bytes)} at most"
    if verdict.kind == "out-of-memory":
        return Sentence(kind=verdict.kind, title="Ran out of memory", detail=_oom_detail(run))
    if verdict.kind == "unknown":
        title = f"Needs {size(figures.process_bytes)}"
        card = (
            f"{verdict.gpu} is the {SMALLEST_CARD} of the catalogue that has room for it."
            if verdict.gpu
            else "No card of the catalogue has room for it."
        )
        return Sentence(kind=verdict.kind, title=title, detail=f"{need}. {card}")
    usable, headroom = verdict.usable_bytes or 0, verdict.headroom_bytes or 0
    title = {
        "fits": f"Fits on {verdict.gpu}",
        "tight": f"Tight on {verdict.gpu}",
        "does-not-fit": f"Does not fit on {verdict.gpu}",
    }[verdict.kind]
    if verdict.kind == "fits":
        rest = f"{size(headroom)} to spare"
    elif verdict.kind == "tight":
        rest = f"the bound is {size(-headroom)} above it"
    else:
        rest = f"{size(figures.process_bytes - usable)} too much"
    return Sentence(kind=verdict.kind, title=title, detail=f"{need}; torch can use {size(usable)}: {rest}.")


def _oom_detail(run: RunReport) -> str:
    oom = run.replay.replayed.oom
    if oom is None:
        return "The recording notes a refused allocation that the replica of the allocator could serve."
    cause = (
        "enough was free, but not in one piece: fragmentation"
        if oom.is_fragmentation
        else f"{size(oom.requested_bytes - oom.cached_bytes - oom.free_bytes)} too few"
    )
    return (
        f"Event {oom.event:,} asked for {size(oom.requested_bytes)} with {size(oom.reserved_bytes)} of "
        f"{size(oom.limit_bytes)} reserved and {size(oom.allocated_bytes)} allocated; free were {size(oom.free_bytes)} "
        f"at the driver and {size(oom.cached_bytes)} in the cache, {size(oom.largest_cached_bytes)} of it in one "
        f"piece: {cause}."
    )


def banner(run: RunReport) -> str:
    """The verdict, the reason, and four numbers."""
    sentences = [sentence(run, verdict) for verdict in run.verdicts]
    first = sentences[0]
    more = "".join(
        f'<li class="{escaped(other.kind)}"><b>{escaped(other.title)}.</b> {escaped(other.detail)}</li>'
        for other in sentences[1:]
    )
    return (
        f'<section class="banner {escaped(first.kind)}" aria-label="Verdict">'
        f'<div class="verdict"><span class="icon" aria-hidden="true">{ICONS[first.kind]}</span>'
        f"<div><h2>{escaped(first.title)}</h2><p>{escaped(first.detail)}</p>"
        f"{f'<ul>{more}</ul>' if more else ''}<p class=why>{_why(run)}</p></div></div>"
        f"{_bar(run)}{_tiles(run)}</section>"
    )


def _why(run: RunReport) -> str:
    """Which moment holds most, of what, and which comes next."""
    peak = run.peak
    parts = sorted(peak.by_category.items(), key=lambda item: -item[1])
    total = max(1, peak.live_bytes)
    named = ", ".join(f"{words(name)} {size(nbytes)} ({nbytes / total:.0%})" for name, nbytes in parts[:3] if nbytes)
    where = f" at {words(peak.label)}" if peak.label else f" at event {peak.event:,}"
    text = f"Live tensors peak{where}: {named}."
    if run.runner_up is not None:
        gap = peak.live_bytes - run.runner_up.live_bytes
        text += f" Next comes {words(run.runner_up.label)}, {size(gap)} lower."
    return escaped(text)


def _bar(run: RunReport) -> str:
    """What the process holds, on a scale that ends at the card or at the bound."""
    figures = run.figures
    usable = next((verdict.usable_bytes for verdict in run.verdicts if verdict.usable_bytes), None)
    ran_out = run.verdicts[0].kind == "out-of-memory"
    scale = max(usable or 0, figures.reserved_bytes if ran_out else figures.upper_bytes, 1)
    parts = [
        ("live", "live tensors", figures.live_bytes),
        ("rests", "rounding and rests inside blocks", figures.allocated_bytes - figures.live_bytes),
        ("cached", "cached, not lent", figures.reserved_bytes - figures.allocated_bytes),
        ("context", "CUDA context", figures.process_bytes - figures.reserved_bytes),
        ("bound", "up to the bound", figures.upper_bytes - figures.process_bytes),
    ]
    if ran_out:  # the limit is that of the allocator alone
        parts = parts[:3]
    limited = "to reserve" if ran_out else "usable"
    pieces = "".join(
        f'<i class="{kind}" style="width:{100 * max(0, nbytes) / scale:.3f}%" title="{label}: {size(nbytes)}"></i>'
        for kind, label, nbytes in parts
    )
    limit = (
        f'<b class="limit" style="left:{100 * usable / scale:.3f}%"><span>{size(usable)} {limited}</span></b>'
        if usable
        else ""
    )
    key = "".join(
        f'<span><i class="{kind}"></i>{label} {size(nbytes)}</span>' for kind, label, nbytes in parts if nbytes > 0
    )
    return (
        f'<div class="meter"><div class="track" role="img" aria-label="{_bar_label(run)}">{pieces}{limit}</div>'
        f'<div class="key">{key}</div></div>'
    )


def _bar_label(run: RunReport) -> str:
    return escaped(f"{size(run.figures.process_bytes)} in the process, {size(run.figures.reserved_bytes)} reserved")


def _tiles(run: RunReport) -> str:
    figures = run.figures
    recorded = figures.recorded_reserved_bytes
    reserved_note = "torch.cuda.max_memory_reserved"
    if recorded is not None and recorded != figures.reserved_bytes:
        reserved_note = f"recorded: {size(recorded)}"
    rows = (
        ("live", figures.live_bytes, "tensors, in blocks of 512 B"),
        ("allocated", figures.allocated_bytes, "torch.cuda.max_memory_allocated"),
        ("reserved", figures.reserved_bytes, reserved_note),
        ("process", figures.process_bytes, f"nvidia-smi; at most {size(figures.upper_bytes)}"),
    )
    return f'<dl class="tiles">{"".join(tile(*row) for row in rows)}</dl>'


def tile(name: str, nbytes: int, note: str) -> str:
    """One of the numbers."""
    number, _, unit = size(nbytes).rpartition(" ")
    return (
        f"<div><dt>{escaped(name)}</dt><dd>{escaped(number)}<small> {escaped(unit)}</small></dd>"
        f"<p>{_breakable(note)}</p></div>"
    )


def _breakable(text: str) -> str:
    """Long names may break."""
    return escaped(text).replace("_", "_<wbr>").replace("torch.cuda.", "torch.cuda.<wbr>")
