"""Numbers and names as people read them."""

from collections.abc import Iterable

from estimators.workload import Method, Workload
from galore_mem.answers.sizes import tokens_of

GIB = 2**30

SMALLEST_CARD = "smallest desktop or server card"
"""What is named where a card is looked for: a laptop's cannot be had alone, and a MIG slice is part of another."""
STEP_ORDER: tuple[str, ...] = (
    *("resume", "broadcast", "forward", "forward_end", "loss", "backward", "backward_start", "backward_end"),
    *("clip", "refresh", "layer_update", "step", "evaluation"),
)
"""Moments, and phases where a recording knows no moments, as a step goes through them.

An optimizer that refreshes matrix by matrix is in `refresh` and `step` by turns: a matrix is refreshed before its step.
"""


def gib(nbytes: int, digits: int = 2) -> str:
    """Bytes in GiB, without the unit; from a thousand on whole ones, which columns have room for."""
    return f"{nbytes / GIB:,.{digits if abs(nbytes) < 999.995 * GIB else 0}f}"


def signed_gib(nbytes: int) -> str:
    """Bytes in GiB with their sign; a lack that rounds to nothing has none."""
    text = gib(nbytes)
    return text.removeprefix("-") if text == "-0.00" else f"{'' if nbytes < 0 else '+'}{text}"


def counted(number: int, thing: str) -> str:
    """How many of something there are.

    >>> counted(1, "card"), counted(2, "card")
    ('1 card', '2 cards')
    """
    return f"{number:,} {thing}{'s' * (number != 1)}"


def parameters(count: int) -> str:
    """A number of parameters with three digits: `6.74 B`."""
    for limit, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= 0.9995 * limit:
            value = count / limit
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
    return str(count)


def configuration(method: Method) -> str:
    """Method, rank and update: `galore-adamw-8bit r1024 per-layer`."""
    parts = [method.name]
    if method.rank is not None:
        parts.append(f"r{method.rank}")
    if method.master_weights:
        parts.append("(fp32 masters)")
    if method.update == "per-layer":
        parts.append("per-layer")
    if method.implementation == "galore-torch":
        parts.append("(galore-torch)")
    return " ".join(parts)


def batch(workload: Workload) -> str:
    """What one optimizer step consumes: `1 x 256 tokens`."""
    size = workload.batch
    text = f"{size.micro_batch_size:,} x {tokens_of(size.sequence_length)}"
    if size.gradient_accumulation_steps > 1:
        text += f", {size.gradient_accumulation_steps:,} micro-batches a step"
    return text


def moment(label: str) -> str:
    """A moment's label in words: `steady backward end`."""
    return label.replace("_", " ")


def in_step_order(labels: Iterable[str]) -> list[str]:
    """Moments, with or without their iteration, as they follow each other; what no step is known to have comes last."""
    ranks = {name: rank for rank, name in enumerate(STEP_ORDER)}

    def place(label: str) -> tuple[bool, int]:
        iteration, _, name = label.rpartition(" ")
        return iteration == "steady", ranks.get(name, len(ranks))

    return sorted(dict.fromkeys(labels), key=place)


def limit(count: int) -> str:
    """A largest size that fits; a dash where none does."""
    return f"{count:,}" if count else "-"
