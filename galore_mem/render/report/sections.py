"""The page's sections that are words and tables."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from galore_mem.answers.command_line import command_line
from galore_mem.answers.replay import WhatIf
from galore_mem.answers.report.answer import Report
from galore_mem.answers.report.figures import Figures
from galore_mem.answers.report.run import RunReport
from galore_mem.render.report.tables import comparison, in_stack_order, moment_rows, table
from galore_mem.render.report.text import escaped, signed_size, size, words
from galore_mem.render.words import SMALLEST_CARD

if TYPE_CHECKING:
    from galore_mem.answers.report.differences import Differences

WHICH_CARDS = f"Where no card is given, the {SMALLEST_CARD} of the catalogue with room for it is named."
_COMMANDS = {"traced": "trace", "replayed": "profile", "measured": "profile"}


def section(ident: str, title: str, body: str, lead: str = "") -> str:
    """One section with its heading."""
    told = f'<p class="lead">{lead}</p>' if lead else ""
    heading = f'<h2 id="{ident}-title">{title}</h2>'
    return f'<section id="{ident}" aria-labelledby="{ident}-title">{heading}{told}{body}</section>'


def gap(run: RunReport) -> str:
    """From live tensors to the process: every part of the distance named."""
    figures = run.figures
    waste = run.replay.fragmentation
    context = (figures.context_low_bytes + figures.context_high_bytes) // 2
    unattributed = run.alive.by_category.get("unattributed", 0)
    rows = [
        ("live tensors", figures.live_bytes, "what the program holds, each request rounded up to 512 B"),
        (
            "rounding and rests",
            figures.allocated_bytes - figures.live_bytes,
            "parts of blocks that were lent along with a tensor because splitting them off is not allowed",
        ),
        (
            "cached",
            figures.reserved_bytes - figures.allocated_bytes,
            f"held by the allocator, lent to nobody: fragmentation. At the reserved peak {size(waste.cached_bytes)} in "
            f"pieces of at most {size(waste.largest_cached_bytes)}",
        ),
        (
            "context",
            context,
            _context_reason(figures),
        ),
    ]
    before = [0, *(sum(row[1] for row in rows[:number]) for number in range(1, len(rows)))]
    total = max(1, figures.upper_bytes)
    body = [
        (
            escaped(name),
            (size(nbytes) if number == 0 else signed_size(nbytes)),
            _step_bar(before[number], nbytes, total),
            escaped(reason),
        )
        for number, (name, nbytes, reason) in enumerate(rows)
    ]
    body.append(
        (
            "<b>process</b>",
            f"<b>{size(figures.process_bytes)}</b>",
            _step_bar(0, figures.process_bytes, total),
            "what nvidia-smi shows",
        )
    )
    if figures.scratch_bytes:
        body.append(
            (
                "scratch nobody sees",
                signed_size(figures.scratch_bytes),
                _step_bar(figures.process_bytes, figures.scratch_bytes, total),
                "at most, inside kernels: in the bound only",
            )
        )
    if unattributed:
        body.append(
            (
                "unattributed",
                size(unattributed),
                _step_bar(0, unattributed, total),
                "of the live tensors: no rule knows what they are for (--categories takes rules of yours)",
            )
        )
    head = ("part", "bytes", "", "what it is")
    return table(head, body, numbers=(1,), caption="From live tensors to the process", kind="stacked")


def _context_reason(figures: Figures) -> str:
    if figures.context_low_bytes == figures.context_high_bytes:
        return "CUDA context, outside the allocator: what the driver counted for the process beyond reserved memory"
    return (
        f"CUDA context, outside the allocator: {size(figures.context_low_bytes)} to {size(figures.context_high_bytes)} "
        "were seen; the middle is counted"
    )


def _step_bar(start: int, nbytes: int, total: int) -> str:
    left, width = 100 * max(0, start) / total, 100 * max(0, nbytes) / total
    return f'<span class="ladder"><i style="left:{left:.3f}%;width:{width:.3f}%"></i></span>'


def expected(run: RunReport) -> str:
    """The closed form beside the recording; empty where the recording does not say what was trained."""
    found = run.expectation
    if found is None:
        return ""
    head = ("moment", "closed form", "recorded")
    ours, theirs = words(found.footprint.peak.label), words(found.found_at)
    where = ours if ours == theirs else f"closed form at {ours}, recorded at {theirs}"
    return (
        "<h3>Moment by moment</h3>"
        + comparison(moment_rows(found.moments), head, caption="Live bytes of every moment")
        + f"<h3>Category by category, at the live peak ({escaped(where)})</h3>"
        + comparison(
            in_stack_order(found.categories),
            ("category", "closed form", "recorded"),
            caption="Live bytes by category at the live peak",
            with_swatches=True,
        )
    )


def what_ifs(run: RunReport) -> str:
    """The same history under other allocator settings."""
    base = next((row for row in run.replay.what_ifs if row.is_recorded and not row.start_anew), None)
    rows = [
        (
            f"<code>{escaped(row.settings or 'defaults')}</code>"
            + (" <small>as recorded</small>" * row.is_recorded)
            + (" <small>started anew</small>" * row.start_anew),
            size(row.peak_reserved_bytes),
            signed_size(row.peak_reserved_bytes - base.peak_reserved_bytes) if base and row is not base else "",
            f"{row.unused_share:.1%}",
            escaped(_outcome(row)),
        )
        for row in run.replay.what_ifs
    ]
    told = table(
        ("allocator settings", "reserved", "against recorded", "unused", "outcome"),
        rows,
        numbers=(1, 2, 3),
        caption="The same history under other allocator settings",
        kind="stacked",
    )
    has_cards = any(row.smallest_card for row in run.replay.what_ifs)
    return told + f'<p class="note">{WHICH_CARDS}</p>' * has_cards


def _outcome(row: WhatIf) -> str:
    if row.oom:
        return f"runs out of memory at event {row.oom.event:,}"
    if row.limit:
        return f"runs on {row.limit.name}"
    return f"fits {row.smallest_card}" if row.smallest_card else "fits no card of the catalogue"


def differences(report: Report) -> str:
    """Everything that two runs do not share."""
    found: Differences | None = report.differences
    if found is None:
        return ""
    first, second = (run.name for run in report.runs)
    head = (first, second)
    parts = [
        comparison(found.peaks, ("peak", *head), caption="Peaks of both runs"),
        "<h3>Category by category, each run at its own live peak</h3>",
        comparison(
            in_stack_order(found.categories), ("category", *head), caption="Categories of both runs", with_swatches=True
        ),
    ]
    if found.moments:
        parts += [
            "<h3>Moment by moment</h3>",
            comparison(moment_rows(found.moments), ("moment", *head), caption="Moments"),
        ]
    if found.layers:
        parts += ["<h3>By layer</h3>", comparison(found.layers, ("layer", *head), caption="Layers of both runs")]
    if found.settings:
        rows = [(escaped(row.name), escaped(row.first or "-"), escaped(row.second or "-")) for row in found.settings]
        parts += ["<h3>What was not the same</h3>", table(("setting", *head), rows, caption="Settings that differ")]
    return "".join(parts)


def about(run: RunReport, label: str, *, has_raw: bool) -> str:
    """Environment, command, and the run itself."""
    rows = [
        (escaped(key), escaped(value))
        for key, value in [
            ("file", run.name),
            ("source", run.source),
            ("history", _history(run)),
            ("events", f"{run.lives.events:,}, {len(run.lives):,} blocks"),
            (
                "categories",
                "by rules: sizes, lifetimes, stacks" if run.categories_by_rule else "recorded",
            ),
            ("allocator settings", run.settings or "defaults"),
            *pairs_of(run.metadata.get("workload")),
            *pairs_of(run.metadata.get("trainer"), "trainer"),
            *pairs_of(run.metadata.get("environment")),
        ]
    ]
    command = _command(run)
    typed = (
        '<h3>The same run again</h3><div class="command"><code tabindex="0">'
        f'{escaped(command)}</code><button type="button" class="copy">Copy</button></div>'
        if command
        else ""
    )
    what = "The whole run as JSON" if has_raw else "What this page draws, as JSON"
    why = (
        "a Tape: galore-mem replay and report read it"
        if has_raw
        else "the whole run is too large for a page: it stays in its file"
    )
    notes = "".join(f"<li>{escaped(note)}</li>" for note in run.notes)
    return (
        f'{typed}<p><button type="button" class="download" data-run="{label}">{what}</button> '
        f"<small>{escaped(why)}</small></p>"
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
        + table(("what", "value"), rows, caption="The run and its environment")
    )


def _command(run: RunReport) -> str:
    """What to type for the same run: as it was typed where that is known, else as the workload says."""
    typed = run.metadata.get("command")
    if isinstance(typed, str):
        return typed
    if run.workload is None or run.source not in _COMMANDS:
        return ""
    gpus = run.metadata.get("gpus")
    names = [str(name) for name in gpus] if isinstance(gpus, list) else []
    return command_line(_COMMANDS[run.source], run.workload.model.name, run.workload, names) + (
        " --device cpu" if run.source == "replayed" else ""
    )


def _history(run: RunReport) -> str:
    return {
        "complete": "complete",
        "rebuilt": "began late: older events were not recorded, or had fallen out of the recorder's buffer",
        "final": "segments only, without events",
    }[run.history]


def pairs_of(value: Any, prefix: str = "") -> list[tuple[str, str]]:  # noqa: ANN401
    """A nested object's leaves, each with its path in words."""
    if isinstance(value, Mapping):
        return [pair for key, inner in value.items() for pair in pairs_of(inner, f"{prefix} {words(str(key))}".strip())]
    if value is None or value in ("", []) or not prefix:
        return []
    if isinstance(value, bool):
        return [(prefix, "yes" if value else "no")]
    if isinstance(value, int):
        return [(prefix, f"{value:,}")]
    return [(prefix, ", ".join(map(str, value)) if isinstance(value, list) else str(value))]
