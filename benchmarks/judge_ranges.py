"""How far the closed form's bound of reserved memory carries: the section of docs/accuracy.md that says so."""

from typing import TYPE_CHECKING, Any

from benchmarks.enclosed import MARGIN, Row, by_kind, family_of, left_out, model_of, ranges_of, slack, width
from benchmarks.judge import large_grid, title
from benchmarks.pages import paragraph, table
from estimators.analytic.bounds import seen_range
from estimators.analytic.demand import Demand
from estimators.analytic.estimate import outliner_of

if TYPE_CHECKING:
    from collections.abc import Callable

NAMED = 12
"""Groups that the page shows: those whose runs pass by most."""


def add_demand(rows: list[dict[str, Any]]) -> None:
    """Put what the bound of each traced workload is made of into its row."""
    grid = {title(workload): workload for workload in large_grid()}
    for row in rows:
        workload = grid[row["title"]]
        outliner = outliner_of(workload, None)
        row["demand_bytes"] = Demand(workload, outliner).of(outliner.course)
        row["states_bytes"] = outliner.stepping.states_bytes
        found = seen_range(workload)
        beyond = found.beyond_bytes(
            row["analytic_live_bytes"], row["lasting_bytes"], row["states_bytes"], row["demand_bytes"]
        )
        row["bound_reserved_bytes"] = row["central_reserved_bytes"] + beyond


def section(judged: list[dict[str, Any]], replayed: list[Row], traced: list[Row]) -> list[str]:
    """All of it.

    Args:
        judged: the judge's rows, with what `add_demand` adds.
        replayed: those of `benchmarks/ranges.py`.
        traced: the judge's as rows of that kind.
    """
    return [
        "## Allocated and reserved beyond the closed form",
        "",
        *_explained(replayed),
        *table(
            "update | GaLore by | checkpointing | runs | of transient | of demand | of the lesser | of states "
            "| least | allocated: of live",
            [
                (
                    *(found.update, found.implementation, found.checkpointing, found.rows),
                    *(f"{share} %" for share in (found.transient_pct, found.demand_pct, found.lesser_pct)),
                    *(f"{found.states_pct} %", f"{found.least_mib} MiB", f"{found.allocated_pct} %"),
                )
                for found in ranges_of(replayed + traced)
            ],
        ),
        *_widths(judged, replayed, traced),
        *_carried(replayed + traced),
    ]


def _explained(replayed: list[Row]) -> list[str]:
    models, families = {*map(model_of, replayed)}, {*map(family_of, replayed)}
    return [
        *paragraph(
            "No closed form knows what an allocator's blocks leave between them. `plan` bounds it by what was seen in",
            f"{len(replayed)} runs of {len(models)} models ({len(families)} families), whose histories are written",
            "from the closed form and replayed (`benchmarks/ranges.py`). Each is drawn by a seed: a method, an update,",
            "and whatever else people set, in a batch that some card from 8 to 192 GiB has room for.",
        ),
        *paragraph(
            "What explains it is how much the sizes of tensors differ between the moments of a step: a block that a",
            "smaller tensor has left behind is of no use to a larger one. *Demand* says how much that is: of each size",
            "the most that ever live at once, summed up, less the live peak (`estimators/analytic/demand.py`). The",
            "bound is a sum of shares: of what comes and goes within a step (transient), of demand, of what comes and",
            "goes or what stays, whichever is less, and of states, which are born between other tensors. Shares are",
            "the least, on average, whose sum no run exceeded (a linear program), and",
            f"{100 * MARGIN:.0f} % more. The bound grows with a batch as live bytes do. `plan --exact` and",
            "`galore-mem trace` replay a history and need no such bound. Logits that an evaluation keeps",
            "(`--eval-keep`) are outside of it: joined anew for every batch, each time in a larger segment, they leave",
            "all earlier ones to the allocator, which gives them back only when the card is full.",
        ),
    ]


def _widths(judged: list[dict[str, Any]], replayed: list[Row], traced: list[Row]) -> list[str]:
    slacks = sorted(row["bound_reserved_bytes"] / row["traced_reserved_bytes"] - 1 for row in judged)
    passed = sum(room < 0 for room in slacks)
    alone = by_kind(ranges_of(replayed))
    beyond = [-room for row in traced if (room := slack(row, alone)) < 0]
    middle, mean, most = width(replayed, ranges_of(replayed + traced))
    return paragraph(
        f"Of the {len(judged)} traced runs of this page {passed} pass the bound; of ranges made of replays alone",
        f"{len(beyond)} would, by {100 * max(beyond, default=0):.1f} % of reserved at most, and so they count, too. It",
        f"lies {100 * slacks[len(slacks) // 2]:.1f} % above what they reserved in the median, and",
        f"{100 * slacks[int(0.95 * len(slacks))]:.1f} % for 95 % of them; of the replayed runs, whose models and",
        f"settings are more various, {100 * middle:.1f} % in the median, {100 * mean:.1f} % on average and",
        f"{100 * most:.1f} % for 95 %.",
    )


def _carried(rows: list[Row]) -> list[str]:
    lines = paragraph(
        "How far such a bound carries: all runs of each family, and of each model, replayed and traced, held against",
        "ranges made of the others'.",
    )
    summary, worst = [], []
    groupings: tuple[tuple[str, Callable[[Row], str]], ...] = (("family", family_of), ("model", model_of))
    for name, group_of in groupings:
        for margin in (0.0, MARGIN):
            found = left_out(rows, group_of, margin)
            passed = sum(group.passed for group in found)
            share, most = 100 * passed / len(rows), 100 * max(group.worst for group in found)
            summary.append((name, len(found), f"{100 * margin:.0f} %", passed, f"{share:.2f}", f"{most:.2f}"))
        worst += [(name, group) for group in found if group.passed]
    worst.sort(key=lambda entry: -entry[1].worst)
    lines += table("left out | groups | margin | runs beyond | % of all | worst, % of reserved", summary)
    lines += ["Those that pass by most, margin included:", ""]
    return lines + table(
        "left out | name | runs | beyond | worst, % of reserved",
        [(kind, one.name, one.runs, one.passed, f"{100 * one.worst:.2f}") for kind, one in worst[:NAMED]],
    )
