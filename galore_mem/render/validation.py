"""`galore-mem validate --show` for a terminal."""

from collections.abc import Iterator, Mapping

from estimators.accuracy import Accuracy, Judgements, Spread, error_pct, judgement_of
from galore_mem.answers.validate import Stored
from galore_mem.render import words
from galore_mem.render.flow import flow
from galore_mem.render.terminal import Terminal, terminal
from galore_mem.render.text import Text
from profiles.records import Predictor, Record, RecordSource

NAMES: dict[Predictor, str] = {"analytic": "plan (closed form)", "traced": "trace (fake tensors)"}
HEADINGS: dict[RecordSource, str] = {
    "measured": "Measured on {}",
    "replayed": "Replayed: run on CPU tensors, history through the allocator's replica; no GPU was involved",
}
LABEL = 26
NONE_YET = "No run on a GPU is recorded yet: nothing here was measured. galore-mem validate does, where there is one."
VERDICTS = {"held": "held", "false fit": "ran out", "false refusal": "refused, ran"}


def print_stored(found: Stored, screen: Terminal | None = None) -> None:
    """What is stored: errors by peak, moment and category, judgements, then every row."""
    screen = screen or terminal()
    lines: list[Text] = []
    for source in HEADINGS:
        records = found.of(source)
        if not records:
            lines += [*flow(Text(NONE_YET), screen.width), Text()] if source == "measured" else []
            continue
        heading = HEADINGS[source].format(", ".join(devices(records)))
        lines += flow(Text(heading, style="bold"), screen.width, indent=2)
        lines += [Text(_software(records), style="dim"), Text()]
        for accuracy in found.accuracy(source):
            lines += [*_accuracy(accuracy, screen.width), Text()]
        lines += [*_rows(records, screen.width), Text()]
    where = ", ".join(found.folders)
    lines += flow(Text(f"{len(found.records)} records in {where}", style="dim"), screen.width, indent=2)
    screen.show(lines)


def print_matrix(device: str, screen: Terminal | None = None) -> None:
    """The matrix: names, and seconds that each should take on the device."""
    from galore_mem.answers.validation.costs import cost_of
    from galore_mem.answers.validation.matrix import chosen

    screen = screen or terminal()
    lines = [Text(f"{'s':>5}  row", style="dim")]
    rows = chosen(on_cpu=device == "cpu")
    lines += [Text(f"{cost_of(row.workload).turn_seconds:>5.1f}  {row.name}") for row in rows]
    screen.show(lines)


def devices(records: tuple[Record, ...]) -> list[str]:
    """The devices of some records, each once."""
    return list(dict.fromkeys(record.device for record in records))


def _software(records: tuple[Record, ...]) -> str:
    versions = dict.fromkeys(
        f"{name} {record.environment[name]}"
        for name in ("torch", "transformers", "driver")
        for record in records
        if name in record.environment
    )
    return ", ".join(versions)


def _accuracy(accuracy: Accuracy, width: int) -> Iterator[Text]:
    yield Text(f"{NAMES[accuracy.predictor]}: predicted against found, errors in %", style="bold")
    parts: tuple[tuple[str, Mapping[str, Spread]], ...] = (
        ("peak", accuracy.peaks),
        ("live at each moment", accuracy.moments),
        ("at the peak, points of it", accuracy.categories),
        ("between steps", accuracy.resident),
    )
    for head, spreads in parts:
        if spreads:
            yield Text(f"{head:<{LABEL}}{'runs':>5}{'median':>8}{'p95':>7}{'worst':>8}", style="dim")
        for name, spread in spreads.items():
            yield _spread(name, spread, width)
    yield from flow(Text(judgements(accuracy.judgements)), width, indent=2)


def _spread(name: str, spread: Spread, width: int) -> Text:
    line = Text(f"{words.moment(name):<{LABEL}}{spread.count:>5}")
    line.append(f"{signed(spread.median_pct):>8}{spread.p95_size_pct:>7.2f}{signed(spread.worst_pct):>8}")
    room = width - line.cell_len - 2
    if room >= 16 and abs(spread.worst_pct) >= 0.005:
        line.append(f"  {cut(spread.worst_row, room)}", style="dim")
    return line


def judgements(found: Judgements) -> str:
    """What the upper bounds were worth, in a sentence."""
    if not found.count:
        return "No run tells yet what the upper bound is worth."
    text = (
        f"Under the upper bound: {found.failed} of {found.count} estimates failed "
        f"({100 * found.failure_probability:.1f} %); {found.false_fits} were promised to fit and ran out, "
        f"{found.false_refusals} were refused and ran."
    )
    if found.conserved_bytes is not None:
        text += f" Memory conserved: {words.gib(found.conserved_bytes)} GiB a run."
    return text


def _rows(records: tuple[Record, ...], width: int) -> Iterator[Text]:
    room = max(16, width - 34)
    yield Text(f"{'row':<{room}}{'GiB':>7}{'plan':>8}{'trace':>8}  capped", style="dim")
    for record in records:
        line = Text(f"{cut(record.row, room - 1):<{room}}")
        if record.measured is None:
            yield line.append(f"  {record.outcome.replace('-', ' ')}", style="dim")
            continue
        line.append(f"{words.gib(record.measured.peak_reserved_bytes):>7}")
        for predictor in NAMES:
            figures = record.predicted.get(predictor)
            error = error_pct(figures.peak_reserved_bytes, record.measured.peak_reserved_bytes) if figures else None
            line.append(f"{'-' if error is None else signed(error):>8}")
        yield line.append(f"  {capped(record)}", style="dim")
    yield Text("GiB and errors are of the reserved peak.", style="dim")


def capped(record: Record) -> str:
    """What became of the run under the bounds: the tighter one's verdict where both are alike."""
    found = {name: judgement_of(record, name) for name in NAMES}
    said = {name: VERDICTS[verdict[0]] for name, verdict in found.items() if verdict is not None}
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return ", ".join(f"{name} {verdict}" for name, verdict in said.items()) or "-"


def signed(percent: float) -> str:
    """Two digits and the sign; nothing is never negative."""
    return f"{round(percent, 2) or 0.0:+.2f}"


def cut(text: str, width: int) -> str:
    """`text` in at most `width` characters."""
    return text if len(text) <= width else f"{text[: width - 2]}.."
