"""Writes the tables and the curves of docs/galore.md from what the other scripts measured.

Run from the repository's root: `python -m benchmarks.galore_figures`. Measured are `docs/galore/quality.json`
(`benchmarks.galore_quality`) and `docs/galore/speed.json` (`benchmarks.galore_speed`); memory is counted anew. A test
holds the page to what stands here.
"""

import json
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.galore_quality import CURVE_STEPS

DOCUMENT = Path("docs/galore.md")
QUALITY = Path("docs/galore/quality.json")
SPEED = Path("docs/galore/speed.json")
CURVES = Path("docs/galore/quality.svg")

COLOURS = {
    "galore_torch": "#d95f02",
    "galore-mem": "#1b9e77",
    "galore-mem, 8-bit": "#7570b3",
    "AdamW in full": "#777777",
}
Record = dict[str, Any]


def read(path: Path) -> Record:
    """A measured record."""
    record: Record = json.loads(path.read_text(encoding="utf-8"))
    return record


def quality_table(record: Record) -> str:
    """Losses over seeds, and their signed difference to galore_torch's with the same seed."""
    lines = [
        "| optimizer | seeds | validation loss, mean | to galore_torch's: mean | spread | least | most "
        "| energy captured: least | mean |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    reference = record["runs"]["galore_torch"]
    for name, runs in record["runs"].items():
        losses = [run["validation_loss"] for run in runs.values()]
        differences = differences_pct(runs, reference)
        signed = (
            ["", "", "", ""]
            if name == "galore_torch"
            else [
                f"{statistics.mean(differences):+.2f} %",
                f"{statistics.stdev(differences):.2f} %",
                f"{min(differences):+.2f} %",
                f"{max(differences):+.2f} %",
            ]
        )
        cells = [name, f"{len(losses)}", f"{statistics.mean(losses):.3f}", *signed, *_captured(runs)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def differences_pct(runs: Record, reference: Record) -> list[float]:
    """By seed, how far a run's validation loss is above the reference's, in percent."""
    pairs = ((run["validation_loss"], reference[seed]["validation_loss"]) for seed, run in runs.items())
    return [100 * (loss / other - 1) for loss, other in pairs]


def _captured(runs: Record) -> list[str]:
    least = [run["least_captured"] for run in runs.values() if run["least_captured"] is not None]
    means = [run["mean_captured"] for run in runs.values() if run["mean_captured"] is not None]
    return [f"{min(least):.5f}", f"{statistics.mean(means):.5f}"] if least else ["", ""]


def quality_text(record: Record) -> str:
    """The setting in words, and the table."""
    setting, rates = record["setting"], record["adamw_rates"]
    tried = ", ".join(f"{rate} ({run['validation_loss']:.3f})" for rate, run in rates.items())
    return "\n".join(
        [
            f"A {setting['layers']}-layer LLaMA of width {setting['hidden_size']} over the bytes of Python "
            f"{record['python']}'s standard library,",
            f"{setting['steps']} steps of {setting['batch_size']} x {setting['sequence_length']} bytes, "
            f"rank {setting['rank']}, refresh every {setting['update_proj_gap']} steps, learning rate "
            f"{setting['lr']:g} and scale {setting['scale']:g}",
            "for GaLore. AdamW in full has the best of the learning rates tried on the first seed, validation loss in "
            f"brackets:\n{tried}.",
            "",
            quality_table(record),
            "",
            "![Training loss by step](galore/quality.svg)",
        ]
    )


def curves_svg(record: Record) -> str:
    """Mean training loss over seeds, with the band from the best seed to the worst."""
    width, height, left, bottom, top = 720, 400, 60, 50, 4.0
    curves = {name: _by_step(record["runs"][name]) for name in COLOURS if name in record["runs"]}
    count = max(len(points) for points in curves.values())
    low = min(min(point) for points in curves.values() for point in points)

    def at(index: int, loss: float) -> str:
        x = left + (width - left - 20) * (index + 1) / count
        return f"{x:.1f},{20 + (height - bottom - 20) * (top - min(loss, top)) / (top - low):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for tick in range(int(low * 2) + 1, int(top * 2) + 1):
        y = at(0, tick / 2).split(",")[1]
        parts.append(f'<path d="M{left} {y}H{width - 20}" stroke="#dddddd"/><text x="20" y="{y}">{tick / 2:.1f}</text>')
    for row, (name, points) in enumerate(curves.items()):
        colour = COLOURS[name]
        upper = [at(index, max(point)) for index, point in enumerate(points)]
        lower = [at(index, min(point)) for index, point in enumerate(points)]
        mean = [at(index, statistics.mean(point)) for index, point in enumerate(points)]
        parts += [
            f'<polygon fill="{colour}" fill-opacity="0.15" points="{" ".join([*upper, *reversed(lower)])}"/>',
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{" ".join(mean)}"/>',
            f'<text x="{width - 200}" y="{40 + 20 * row}" fill="{colour}">{name}</text>',
        ]
    for step in range(0, count * CURVE_STEPS + 1, 50):
        x = left + (width - left - 20) * step / (count * CURVE_STEPS)
        parts.append(f'<text x="{x:.1f}" y="{height - 32}" text-anchor="middle">{step}</text>')
    label = "step; training loss, mean of 20 steps, over seeds: mean and range"
    return "\n".join([*parts, f'<text x="{width // 2 - 200}" y="{height - 10}">{label}</text></svg>']) + "\n"


def _by_step(runs: Record) -> list[tuple[float, ...]]:
    return list(zip(*(run["curve"] for run in runs.values()), strict=True))


def refresh_table(record: Record) -> str:
    """Refreshes beside the reference's decomposition."""
    lines = [
        "| gradient | rank | galore_torch SVD, s | ours, warm, s | times faster | ours, first, s | times faster "
        "| energy: warm | first |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in record["refreshes"]:
        exact, warm, cold = (row[key] for key in ("galore_torch_seconds", "warm_seconds", "cold_seconds"))
        cells = [
            f"{row['name']}, {row['shape'][0]} x {row['shape'][1]}",
            f"{row['rank']}",
            f"{exact:.3g}",
            f"{warm:.3g}",
            f"{exact / warm:.1f}",
            f"{cold:.3g}",
            f"{exact / cold:.1f}",
            f"{row['warm_energy']:.5f}",
            f"{row['cold_energy']:.5f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def step_table(record: Record) -> str:
    """Plain steps beside the reference's, and compiled."""
    lines = [
        "| matrix | dtype | galore_torch, ms | ours, ms | ratio | ours compiled, ms | ratio to ours |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in record["steps"]:
        theirs, mine, compiled = (1000 * row[key] for key in ("galore_torch_seconds", "seconds", "compiled_seconds"))
        cells = [
            f"{row['name']}, {row['shape'][0]} x {row['shape'][1]}",
            row["dtype"],
            f"{theirs:.1f}",
            f"{mine:.1f}",
            f"{mine / theirs:.2f}",
            f"{compiled:.1f}",
            f"{compiled / mine:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def environment(record: Record) -> str:
    """Where speed was measured."""
    return f"{record['device']}, {record['threads']} thread, torch {record['torch']}; {record['clock']}."


def _memory_table() -> str:
    from benchmarks.galore_memory import table

    warnings.simplefilter("ignore")
    return table()


BLOCKS: dict[str, Callable[[], str]] = {
    "memory": _memory_table,
    "quality": lambda: quality_text(read(QUALITY)),
    "refresh": lambda: environment(read(SPEED)) + "\n\n" + refresh_table(read(SPEED)),
    "steps": lambda: step_table(read(SPEED)),
}
"""What stands between `<!-- NAME -->` and `<!-- /NAME -->` in the document."""


def filled(document: str) -> str:
    """The document with every block made anew."""
    for name, make in BLOCKS.items():
        before, begin, rest = document.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if not begin or not end:
            raise SystemExit(f"{DOCUMENT} should hold a block between <!-- {name} --> and <!-- /{name} -->")
        document = f"{before}{begin}{make()}\n{end}{after}"
    return document


if __name__ == "__main__":
    DOCUMENT.write_text(filled(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    CURVES.write_text(curves_svg(read(QUALITY)), encoding="utf-8")
