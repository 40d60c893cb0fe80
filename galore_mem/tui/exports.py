"""The comparison as a file: JSON and CSV with sizes in bytes, or a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from estimators.verdict import judge
from galore_mem.answers.plan import Plan, PlanResult
from galore_mem.errors import UsageError
from galore_mem.render.documents import csv_text, json_text
from galore_mem.render.plan_rows import plan_rows
from galore_mem.render.words import counted
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
    """
    check_path(path)
    results = [result for row in rows if (result := _planned(row, cards)) is not None]
    if not results:
        raise UsageError("there is nothing to export", "no row can run on these cards", "")
    if path.suffix.lower() == ".json":
        text = json_text(document(results, beside))
    elif path.suffix.lower() == ".csv":
        text = csv_text([line for result in results for line in plan_rows(result)])
    else:
        text = page(results, cards[0], beside)
    stood = ", in place of the file that was there" if path.exists() else ""
    write_bytes(path, text.encode())
    many = f"{counted(len(results), 'configuration')} on {counted(len(cards), 'card')}"
    return f"{many} written to {path}{stood}"


def check_path(path: Path) -> None:
    """Refuse before the work what would be refused after it.

    Raises:
        UsageError: an ending that is not known, a folder, or a folder that does not exist.
    """
    if path.suffix.lower() not in FORMATS:
        raise UsageError(
            f"{path.name} has no format", f"it ends in {path.suffix or 'nothing'}", f"use {', '.join(FORMATS)}"
        )
    if path.is_dir() or not path.parent.is_dir():
        why = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise UsageError(f"cannot write {path}", why, "name a file in a folder that exists")


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
    """Bars against the card's line, and tables: a page that needs nothing but a browser."""
    from galore_mem.render.report.comparison_page import Bar, comparison_html

    names = list(dict.fromkeys(result.model.shape.name for result in results))
    bars = [
        Bar(
            label=_label(result, with_model=len(names) > 1),
            by_category=plan.footprint.peak.by_category,
            process_bytes=plan.footprint.process_bytes,
            upper_bytes=plan.footprint.upper_bytes,
            moment=plan.footprint.peak.label,
            fits=plan.fits,
        )
        for result in results
        for plan in result.plans
    ]
    for other in beside:
        if other.source != "analytic" and other.by_category:
            central = other.process_bytes or other.reserved_bytes or sum(other.by_category.values())
            bars.append(
                Bar(
                    label=f"{other.title} ({other.source})",
                    by_category=other.by_category,
                    process_bytes=central,
                    upper_bytes=max(central, other.upper_bytes or 0),
                    moment=other.moment if other.process_bytes else "reserved memory, without a context",
                    fits=(),
                )
            )
    usable = card.card.gpu.usable_bytes - card.card.other_use_bytes
    notes = list(dict.fromkeys(note for result in results for note in result.notes))
    title = names[0] if len(names) == 1 else f"{len(names)} models"
    return comparison_html(title, bars, card.card.gpu.name, usable, notes)


def _label(result: PlanResult, *, with_model: bool) -> str:
    from galore_mem.render.words import batch, configuration

    workload = result.plans[0].workload
    model = f"{workload.model.name}, " if with_model else ""
    return f"{model}{configuration(workload.method)}, {batch(workload)}"
