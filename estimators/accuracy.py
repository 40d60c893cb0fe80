"""How far predictions lie from what was then measured, over many records.

A relative error is (predicted - measured) / measured: negative where too little was predicted. Of the judgements on
whole runs, *failed estimates* and *memory conserved* are those of the literature on memory estimation (DNNMem, ESEC/FSE
2020; xMem, arXiv 2510.21048): an estimate fails where it is wrong about whether the run goes out of memory on the card,
or where the run, capped at the estimate, does. Memory conserved is what of the card the estimate leaves free for others
(all of it where the run was rightly refused), less the estimate itself where it failed, per run.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from profiles.records import PREDICTORS, Figures, Predictor, Record

Peak = Literal["live", "allocated", "reserved", "process"]
PEAKS: dict[Peak, Callable[[Figures], int | None]] = {
    "live": lambda figures: figures.peak_live_bytes,
    "allocated": lambda figures: figures.peak_allocated_bytes,
    "reserved": lambda figures: figures.peak_reserved_bytes,
    "process": lambda figures: figures.process_bytes,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Relative errors of one figure over many records, in percent."""

    count: int
    median_pct: float
    """Signed: which way the errors lean."""
    median_size_pct: float
    """Of their absolute values."""
    p95_size_pct: float
    """The smallest absolute value that 95 % of them do not exceed."""
    worst_pct: float
    """The largest in absolute value, with its sign."""
    worst_row: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgements:
    """Of whole runs, by one predictor's upper bound."""

    count: int
    """Runs whose outcome under the bound is known."""
    failed: int
    """Wrong about the card, or ran out of memory when capped at the bound."""
    false_fits: int
    """Of those, runs that were promised to fit, on this card or on one as large as the bound, and ran out."""
    false_refusals: int
    """Of those, runs that were refused and ran."""
    conserved_bytes: int | None
    """Memory conserved per run, on average; None where no run had a card."""

    @property
    def failure_probability(self) -> float:
        """Share of failed estimates."""
        return self.failed / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """One predictor against measurements."""

    predictor: Predictor
    peaks: Mapping[str, Spread]
    """By peak."""
    moments: Mapping[str, Spread]
    """Live bytes by moment: `first loss`."""
    categories: Mapping[str, Spread]
    """Bytes of a category at the measured peak's moment, against the measured peak's live bytes: points of the peak."""
    resident: Mapping[str, Spread]
    """What stays between steps, by category."""
    judgements: Judgements


def accuracy_of(records: Sequence[Record]) -> tuple[Accuracy, ...]:
    """One per predictor that any record has."""
    return tuple(
        _accuracy(predictor, records)
        for predictor in PREDICTORS
        if any(predictor in each.predicted for each in records)
    )


def spread_of(errors: Iterable[tuple[float, str]]) -> Spread | None:
    """The spread of errors in percent, each with the row it belongs to; None without any."""
    found = sorted(errors, key=lambda pair: (abs(pair[0]), pair[1]))
    if not found:
        return None
    sizes = [abs(error) for error, _ in found]
    return Spread(
        count=len(found),
        median_pct=median(error for error, _ in found),
        median_size_pct=median(sizes),
        p95_size_pct=sizes[-(-95 * len(sizes) // 100) - 1],
        worst_pct=found[-1][0],
        worst_row=found[-1][1],
    )


def error_pct(predicted: int, measured: int) -> float:
    """Signed relative error in percent."""
    return 100 * (predicted - measured) / measured


def _accuracy(predictor: Predictor, records: Sequence[Record]) -> Accuracy:
    errors: dict[str, dict[str, list[tuple[float, str]]]] = {
        kind: {} for kind in ("peaks", "moments", "categories", "resident")
    }
    for record in records:
        if record.measured is None or record.outcome != "measured" or predictor not in record.predicted:
            continue
        for kind, name, error in _errors(record.predicted[predictor], record.measured):
            errors[kind].setdefault(name, []).append((error, record.row))
    spreads = {kind: _spreads(found) for kind, found in errors.items()}
    return Accuracy(predictor=predictor, judgements=_judgements(predictor, records), **spreads)


def _spreads(found: Mapping[str, Sequence[tuple[float, str]]]) -> dict[str, Spread]:
    return {name: spread for name, errors in found.items() if (spread := spread_of(errors)) is not None}


def _errors(predicted: Figures, measured: Figures) -> Iterable[tuple[str, str, float]]:
    """(kind, name, error in percent) of everything that both have."""
    for peak, figure in PEAKS.items():
        ours, real = figure(predicted), figure(measured)
        if ours is not None and real:
            yield "peaks", peak, error_pct(ours, real)
    ours_at = {point.label: point for point in predicted.moments}
    for point in measured.moments:
        if point.label in ours_at and point.live_bytes:
            yield "moments", point.label, error_pct(ours_at[point.label].live_bytes, point.live_bytes)
    same = ours_at.get(measured.peak_moment)
    if same is not None and measured.peak_live_bytes:
        for category in sorted(same.by_category.keys() | measured.at_peak_bytes.keys()):
            apart = same.by_category.get(category, 0) - measured.at_peak_bytes.get(category, 0)
            yield "categories", category, 100 * apart / measured.peak_live_bytes
    for category, real in measured.resident_bytes.items():
        if real and category in predicted.resident_bytes:
            yield "resident", category, error_pct(predicted.resident_bytes[category], real)


def _judgements(predictor: Predictor, records: Sequence[Record]) -> Judgements:
    known = [found for record in records if (found := judgement_of(record, predictor)) is not None]
    conserved = [nbytes for _, nbytes in known if nbytes is not None]
    return Judgements(
        count=len(known),
        failed=sum(verdict != "held" for verdict, _ in known),
        false_fits=sum(verdict == "false fit" for verdict, _ in known),
        false_refusals=sum(verdict == "false refusal" for verdict, _ in known),
        conserved_bytes=sum(conserved) // len(conserved) if conserved else None,
    )


Verdict = Literal["held", "false fit", "false refusal"]


def judgement_of(record: Record, predictor: Predictor) -> tuple[Verdict, int | None] | None:
    """Whether one estimate held, and the memory it conserved (None without a card); None where nothing tells.

    A run that was merely called tight is neither promised nor refused: it is judged under its cap only.
    """
    figures = record.predicted.get(predictor)
    if figures is None or figures.upper_bytes is None:
        return None
    upper, usable = figures.upper_bytes, record.usable_bytes
    refused = usable is not None and figures.process_bytes is not None and figures.process_bytes > usable
    if record.outcome == "out-of-memory":
        if usable is not None and upper <= usable:
            return "false fit", -upper
        return ("held", usable) if refused else None
    if record.outcome != "measured":
        return None
    if refused:
        return "false refusal", -upper
    rerun = record.reruns.get(predictor)
    if rerun is None:
        return None
    if not rerun.survived:
        return "false fit", -upper
    return "held", None if usable is None else max(0, usable - upper)
