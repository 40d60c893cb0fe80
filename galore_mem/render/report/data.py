"""What the page's figures need of a run: compact, plain values."""

from collections.abc import Iterable, Sequence
from typing import Any

from galore_mem.answers.report.alive import Alive, Node
from galore_mem.answers.report.moments import Peak
from galore_mem.answers.report.run import RunReport
from galore_mem.answers.report.spans import MOST_SPANS, Span, fewer
from galore_mem.render.report.colours import PHASE_COLOURS, STACK, category_colours
from galore_mem.render.report.text import clean


class Names:
    """Texts, numbered in the order in which they are met."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def of(self, text: str) -> int:
        """The number of a text."""
        number = self._numbers.get(text)
        if number is None:
            number = self._numbers[text] = len(self.texts)
            self.texts.append(clean(text))
        return number


def page_data(runs: Sequence[RunReport]) -> dict[str, Any]:
    """Everything the page's script draws."""
    return {
        "runs": [run_data(run) for run in runs],
        "stack": list(STACK),
        "colours": category_colours(),
        "phase_colours": PHASE_COLOURS,
    }


def run_data(run: RunReport) -> dict[str, Any]:
    """One run."""
    names = Names()
    return {
        "name": clean(run.name),
        "timeline": _timeline(run, names),
        "phases": _spans(fewer(run.phases), names),
        "iterations": _spans(run.iterations[:MOST_SPANS], names),
        "peak": _mark(run.peak),
        "runner_up": _mark(run.runner_up) if run.runner_up else None,
        "ooms": [oom.event for oom in run.replay.replayed.ooms[:50]],
        "tensors": _tensors(run.alive, names),
        "modules": _tree(run.alive.modules, names),
        "layer_tree": _tree(run.alive.layer_tree, names),
        "layers": run.alive.layers,
        "segments": [
            [
                segment.stream,
                segment.pool,
                int(segment.is_small),
                int(segment.is_expandable),
                [[piece.nbytes, names.of(piece.category), piece.blocks] for piece in segment.pieces],
            ]
            for segment in run.segments
        ],
        "steps": [[clean(step.name), dict(step.seconds)] for step in run.steps],
        "names": names.texts,
    }


def _timeline(run: RunReport, names: Names) -> dict[str, Any]:
    line = run.timeline
    lives: dict[int, int] = {}
    rows: list[list[int]] = []
    at: list[int] = []
    for code in line.life:
        number = abs(code) - 1
        if code and number not in lives:
            lives[number] = len(rows)
            rows.append(
                [
                    run.lives.nbytes[number],
                    names.of(run.categories[number]),
                    names.of(run.lives.text("module", number)),
                    names.of(run.lives.text("operator", number)),
                ]
            )
        at.append(0 if not code else (lives[number] + 1) * (1 if code > 0 else -1))
    return {
        "events": line.events,
        "event": deltas(line.event),
        "categories": {name: deltas(column) for name, column in line.by_category.items()},
        "allocated": deltas(line.allocated),
        "reserved": deltas(line.reserved),
        "life": deltas(at),
        "lives": [deltas(column) for column in zip(*rows, strict=True)] if rows else [],
        "time_us": deltas(line.time_us) if line.time_us is not None else None,
        "is_thinned": line.is_thinned,
    }


def deltas(values: Iterable[int]) -> list[int]:
    """First value, then each one's distance from the one before: short in JSON."""
    found: list[int] = []
    before = 0
    for value in values:
        found.append(value - before)
        before = value
    return found


def _spans(spans: Iterable[Span], names: Names) -> list[list[int]]:
    """Columns: name, start, end."""
    rows = [(names.of(span.name), span.start, span.stop) for span in spans]
    return [deltas(column) for column in zip(*rows, strict=True)] if rows else []


def _mark(peak: Peak) -> dict[str, Any]:
    return {"event": peak.event, "bytes": peak.live_bytes, "label": clean(peak.label.replace("_", " "))}


def _tree(nodes: Iterable[Node], names: Names) -> list[list[int]]:
    return [[names.of(node.label), node.parent, node.nbytes, names.of(node.category)] for node in nodes]


def _tensors(alive: Alive, names: Names) -> list[list[int]]:
    """Columns: bytes, category, module, operator, birth, death (-1: outlives the recording)."""
    columns = [
        [tensor.nbytes for tensor in alive.tensors],
        [names.of(tensor.category) for tensor in alive.tensors],
        [names.of(tensor.module) for tensor in alive.tensors],
        [names.of(tensor.operator) for tensor in alive.tensors],
        [tensor.birth for tensor in alive.tensors],
        [-1 if tensor.death is None else tensor.death for tensor in alive.tensors],
    ]
    return [deltas(column) for column in columns]
