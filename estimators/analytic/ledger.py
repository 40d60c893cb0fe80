"""The activation ledger: every tensor that one decoder layer keeps for backward, by name, formula and bytes."""

from collections import Counter
from dataclasses import replace
from functools import lru_cache

from estimators.analytic.shadow.play import Played, play
from estimators.analytic.shadow.tape import MIDDLE, Kind
from estimators.analytic.structure import PLAYED_LAYERS, structure_of, symbol_sizes
from estimators.analytic.tensors import Tensors
from estimators.analytic.windows import layers_differ
from estimators.workload import Workload


def layer_counts(workload: Workload) -> dict[str, int]:
    """How many layers there are of each kind that keeps something else, the commonest kind first.

    One entry without a name where all are alike.
    """
    if not layers_differ(workload):
        return {"": workload.model.num_hidden_layers}
    return dict(Counter(workload.model.layer_kinds).most_common())


def layer_ledger(workload: Workload, kernel: str, kind: str = "") -> tuple[Tensors, ...]:
    """What one more layer adds to the bytes alive at the end of the forward.

    Its sum equals what `torch.autograd.graph.saved_tensors_hooks` sees on the real layer, without parameters and the
    rotary tables, which all layers share; where checkpointing is on, it is the layer's input.

    Args:
        workload: the run; a model of one or two layers has the ledger of a deeper one.
        kernel: the attention kernel that runs.
        kind: of the layer, as in `layer_counts`; the commonest unless given.
    """
    sizes, structure = symbol_sizes(workload), structure_of(workload, kernel)
    kinds = (kind or Counter(workload.model.layer_kinds).most_common()[0][0],) * PLAYED_LAYERS
    played = play(
        replace(structure, layers=PLAYED_LAYERS, layer_types=kinds if structure.layer_types else (), micro_batches=1)
    )
    return tuple(_in_layer(tensors_of(kind, count, sizes, played)) for kind, count in _kept(played))


def _in_layer(entry: Tensors) -> Tensors:
    """Names as seen from inside the layer."""
    needed_by = tuple(_short(name) for name in entry.needed_by)
    return replace(entry, name=_short(entry.name), needed_by=needed_by)


def _short(name: str) -> str:
    """Without the layer's own name, and the stack's; a copy of a weight is called by that weight's place alone."""
    return name.rpartition(".*.")[2].removeprefix("encoder.").removeprefix("layer.")


def tensors_of(kind: Kind, count: int, sizes: dict[str, int], played: Played) -> Tensors:
    """A played kind in bytes, with whose backward needs it."""
    nbytes = kind.size.itemsize
    for dim in kind.size.dims:
        nbytes *= sizes[dim]
    needed_by = played.needs.get((kind.size, kind.name), ())
    return Tensors(
        name=kind.name,
        nbytes=nbytes,
        count=count,
        category=kind.category,
        formula=kind.size.formula,
        needed_by=needed_by,
    )


@lru_cache(maxsize=256)
def _kept(played: Played) -> tuple[tuple[Kind, int], ...]:
    """Kinds of which the middle layer's forward leaves more alive than it found, in the order of their birth."""
    borders = {detail: position for position, label, detail in played.marks if label == "forward of layer"}
    counts: Counter[int] = Counter()
    for code in played.events[borders[str(MIDDLE)] : borders[str(MIDDLE + 1)]]:
        counts[abs(code)] += 1 if code > 0 else -1
    return tuple((played.kinds[code - 1], count) for code, count in counts.items() if count > 0)
