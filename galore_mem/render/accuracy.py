"""README's section about accuracy: generated from the records, and plain about what there is none of."""

from estimators.accuracy import Accuracy
from galore_mem.answers.validate import Stored
from galore_mem.render import words
from galore_mem.render.validation import NAMES, devices, judgements, signed
from profiles.records import Record

BEGIN, END = "<!-- accuracy: begin -->", "<!-- accuracy: end -->"
NOTHING = """\
No run on a GPU is recorded in this repository yet, so there is no figure to print here: what predictions are worth on a
GPU is not known from measurements of this project. Until then they are held to real layers and real optimizers on CPU
tensors, to recorded GPU histories of others, and to published figures. On a machine with a GPU, `galore-mem validate`
predicts, measures, and runs again under the predicted bound; this section is then generated from its records."""


def accuracy_section(found: Stored) -> str:
    """The section's text in Markdown, without its heading."""
    records = tuple(record for record in found.of("measured") if record.outcome in ("measured", "out-of-memory"))
    if not records:
        return NOTHING
    ran = sum(record.outcome == "measured" for record in records)
    where = f"{', '.join(devices(records))} ({_torches(records)})"
    parts = [
        f"{ran} workloads ran on {where}; every prediction was written down before its workload ran. Errors are "
        "(predicted - measured) / measured, in percent."
    ]
    parts += [_table(accuracy) for accuracy in found.accuracy("measured")]
    return "\n\n".join(parts)


def _torches(records: tuple[Record, ...]) -> str:
    return ", ".join(dict.fromkeys(f"torch {record.environment.get('torch', '?')}" for record in records))


def _table(accuracy: Accuracy) -> str:
    lines = [
        f"**{NAMES[accuracy.predictor]}.** {judgements(accuracy.judgements)}",
        "",
        "| figure | runs | median | 95 % within | worst | of |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for kind, spreads in (("peak", accuracy.peaks), ("moment", accuracy.moments), ("at the peak", accuracy.categories)):
        for name, spread in spreads.items():
            errors = f"{signed(spread.median_pct)} | {spread.p95_size_pct:.2f} | {signed(spread.worst_pct)}"
            lines.append(f"| {kind}: {words.moment(name)} | {spread.count} | {errors} | {spread.worst_row} |")
    return "\n".join(lines)
