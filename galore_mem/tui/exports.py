"""The comparison as a file: JSON and CSV with sizes in bytes, or a page of plotly."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from estimators.verdict import judge
from galore_mem.answers.plan import Plan, PlanResult
from galore_mem.errors import MissingExtraError, UsageError
from galore_mem.render.documents import csv_text, json_text
from galore_mem.render.palette import PARTS
from galore_mem.render.plan_rows import plan_rows
from galore_mem.tapes.atomic import write_bytes
from galore_mem.tui.beside import Beside
from galore_mem.tui.board import NamedCard
from galore_mem.tui.explain import explain
from galore_mem.tui.rows import Row
from profiles.errors import InputError

SCHEMA = "galore-mem/comparison/1"
FORMATS = (".json", ".csv", ".html")


def export(path: Path, rows: Sequence[Row], cards: Sequence[NamedCard], beside: Sequence[Beside]) -> str:
    """Write rows on cards, with what was laid beside; returns what was written, in a sentence.

    Raises:
        UsageError: an ending that is not known, nothing to write, or a file that cannot be written.
        MissingExtraError: a page without plotly.
    """
    if path.suffix not in FORMATS:
        raise UsageError(
            f"{path.name} has no format", f"it ends in {path.suffix or 'nothing'}", f"use {', '.join(FORMATS)}"
        )
    results = [result for row in rows if (result := _planned(row, cards)) is not None]
    if not results:
        raise UsageError("there is nothing to export", "no row can run on these cards", "")
    if path.suffix == ".json":
        text = json_text(document(results, beside))
    elif path.suffix == ".csv":
        text = csv_text([line for result in results for line in plan_rows(result)])
    else:
        text = page(results, cards[0], beside)
    write_bytes(path, text.encode())
    return f"{len(results)} configurations on {len(cards)} cards written to {path}"


def _planned(row: Row, cards: Sequence[NamedCard]) -> PlanResult | None:
    """A row on every card that can run it; the first such card is the plan's."""
    if row.problem:
        return None
    fits, runs, first = [], [], None
    for card in cards:
        try:
            fits.append(judge(row.workload, card.card.gpu, other_use_bytes=card.card.other_use_bytes))
        except InputError:
            continue
        runs.append(card.card)
        first = first or explain(row, card.card)
    if first is None:
        return None
    plan = first.result.plans[0]
    whole = Plan(
        workload=plan.workload,
        attention_kernel=plan.attention_kernel,
        footprint=plan.footprint,
        fits=tuple(fits),
        published=plan.published,
    )
    return PlanResult(
        model=row.named,
        cards=tuple(runs),
        plans=(whole,),
        budget_bytes=None,
        notes=first.result.notes,
        advice=first.result.advice,
    )


def document(results: Sequence[PlanResult], beside: Sequence[Beside]) -> dict[str, Any]:
    """The COMPARISON object: plans as `galore-mem plan --json` has them, and what was traced, measured or opened."""
    others = [column for column in beside if column.source != "analytic"]
    return {
        "schema": SCHEMA,
        "plans": [plan.to_dict() for result in results for plan in result.plans],
        "notes": list(dict.fromkeys(note for result in results for note in result.notes)),
        "beside": [
            {
                "title": column.title,
                "source": column.source,
                "peak_moment": column.moment or None,
                "peak_live_bytes": column.live_bytes,
                "peak_allocated_bytes": column.allocated_bytes,
                "peak_reserved_bytes": column.reserved_bytes,
                "process_bytes": column.process_bytes,
                "upper_bytes": column.upper_bytes,
                "at_peak_bytes": dict(column.by_category),
            }
            for column in others
        ],
    }


def page(results: Sequence[PlanResult], card: NamedCard, beside: Sequence[Beside]) -> str:
    """Stacked bars against the card's line; plotly.js is inside, so that the page opens anywhere."""
    try:
        import plotly.graph_objects as go
    except ImportError:
        raise MissingExtraError("an HTML page", "", "plotly") from None
    columns = [
        (_label(result), result.plans[0].footprint.peak.by_category, result.plans[0].footprint) for result in results
    ]
    bars = [(label, dict(found), footprint.process_bytes, footprint.upper_bytes) for label, found, footprint in columns]
    for other in beside:
        if other.source != "analytic" and other.by_category:
            central = other.process_bytes or other.reserved_bytes or sum(other.by_category.values())
            label = f"{other.title} ({other.source})"
            bars.append((label, dict(other.by_category), central, other.upper_bytes or central))
    labels = [label for label, *_ in bars]
    figure = go.Figure()
    for part in PARTS:
        values = [sum(found.get(name, 0) for name in part.categories) / 2**30 for _, found, _, _ in bars]
        if any(values):
            figure.add_bar(y=labels, x=values, name=part.name, orientation="h", marker_color=part.colour)
    beyond = [(central - sum(found.values())) / 2**30 for _, found, central, _ in bars]
    figure.add_bar(y=labels, x=beyond, name="cache and context", orientation="h", marker_color="#999999")
    bound = [(upper - central) / 2**30 for *_, central, upper in bars]
    figure.add_bar(y=labels, x=bound, name="up to the bound", orientation="h", marker_color="#dddddd")
    usable = (card.card.gpu.usable_bytes - card.card.other_use_bytes) / 2**30
    figure.add_vline(x=usable, line_width=3, annotation_text=f"{card.title}, {usable:.2f} GiB")
    figure.update_layout(
        barmode="stack",
        template="plotly_white",
        title=f"{results[0].model.shape.name}: memory at the peak of a training step",
        xaxis_title="GiB",
        yaxis={"autorange": "reversed"},
    )
    text: str = figure.to_html(include_plotlyjs=True, full_html=True, div_id="comparison")
    return text


def _label(result: PlanResult) -> str:
    from galore_mem.render.words import batch, configuration

    workload = result.plans[0].workload
    return f"{configuration(workload.method)}, {batch(workload)}"
