"""How far a row can go: its upper bound along sequence length, micro-batch size or rank."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from estimators.analytic.estimate import reach
from estimators.workload import Workload, with_batch
from galore_mem.answers.break_even import break_even_rank
from galore_mem.answers.names import Card
from galore_mem.tui.explain import EIGHT_BIT
from galore_mem.tui.rows import Row
from galore_mem.tui.state import PlotAxis
from profiles.errors import InputError

POINTS = 65
LARGEST_BATCH = 64
Vary = Callable[[Workload, int], Workload]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One row along an axis."""

    key: str
    name: str
    points: tuple[tuple[int, int], ...]
    """(number, upper bound in bytes)."""
    furthest: int
    """The largest number whose upper bound fits; 0 if none does."""
    here: int
    """Where the row itself stands."""
    break_even: int | None = None
    """Along rank: where the states take as much as 8-bit AdamW's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Everything that a plot shows."""

    axis: PlotAxis
    card: Card
    curves: tuple[Curve, ...]
    left_out: tuple[str, ...]
    """Rows that have no such axis, or that cannot run."""


def curves_of(rows: Sequence[Row], card: Card, axis: PlotAxis, is_stopped: Callable[[], bool]) -> Curves:
    """Curves of several rows; a worker's task, which ends early when told to."""
    found: list[Curve] = []
    left_out: list[str] = []
    for row in rows:
        if row.problem or (axis == "rank" and row.workload.method.rank is None):
            left_out.append(row.name)
            continue
        try:
            found.append(_curve(row, card, axis, is_stopped))
        except InputError:
            left_out.append(row.name)
    return Curves(axis=axis, card=card, curves=tuple(found), left_out=tuple(left_out))


def _curve(row: Row, card: Card, axis: PlotAxis, is_stopped: Callable[[], bool]) -> Curve:
    workload, vary = row.workload, _VARY[axis]
    usable = card.gpu.usable_bytes - card.other_use_bytes
    points = []
    for number in numbers(axis, workload):
        if is_stopped():
            break
        points.append((number, reach(vary(workload, number), card.gpu).upper_bytes))
    low = max((number for number, nbytes in points if nbytes <= usable), default=0)
    high = min((number for number, nbytes in points if nbytes > usable), default=0)
    while low and high - low > 1 and not is_stopped():
        middle = (low + high) // 2
        fits = reach(vary(workload, middle), card.gpu).upper_bytes <= usable
        low, high = (middle, high) if fits else (low, middle)
    is_galore = workload.method.parameterisation == "galore"
    return Curve(
        key=row.key,
        name=row.name,
        points=tuple(points),
        furthest=low,
        here=_here(axis, workload),
        break_even=break_even_rank(workload.model, workload.method, EIGHT_BIT, workload.precision)
        if axis == "rank" and is_galore
        else None,
    )


def numbers(axis: PlotAxis, workload: Workload) -> Iterator[int]:
    """Where the curve is computed: evenly along a logarithmic axis, whole numbers, each once."""
    low, high = _ends(axis, workload)
    seen = 0
    for step in range(POINTS):
        number = round(low * (high / low) ** (step / (POINTS - 1)))
        if number > seen:
            yield number
            seen = number


def _ends(axis: PlotAxis, workload: Workload) -> tuple[int, int]:
    if axis == "sequence":
        return 64, max(2048, workload.model.max_position_embeddings, workload.batch.sequence_length)
    if axis == "batch":
        return 1, max(LARGEST_BATCH, workload.batch.micro_batch_size)
    return 4, max(8, workload.model.hidden_size)


def _here(axis: PlotAxis, workload: Workload) -> int:
    if axis == "sequence":
        return workload.batch.sequence_length
    return workload.batch.micro_batch_size if axis == "batch" else workload.method.rank or 0


_VARY: dict[PlotAxis, Vary] = {
    "sequence": lambda workload, number: with_batch(workload, sequence_length=number),
    "batch": lambda workload, number: with_batch(workload, micro_batch_size=number),
    "rank": lambda workload, number: replace(workload, method=replace(workload.method, rank=number)),
}
