"""In which order options that fit are recommended."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from estimators.fidelity import fidelity
from estimators.workload import METHODS
from galore_mem.answers.candidates import Form, Option
from galore_mem.answers.wishes import ENOUGH, Wishes


def preference(wishes: Wishes) -> Callable[[Option], tuple[Any, ...]]:
    """The order in which options that fit are recommended.

    Every objective puts the kind of training first, and does not trade rank below the usual quarter of the width away
    while something of that rank fits; then comes what was asked for; then a tenth less work per token, an update of the
    whole model (which can be clipped), finer states, more sequences at once, fewer extras.
    """
    asked = _ASKED[wishes.objective]
    standings: dict[Form, _Standing] = {}

    def key(option: Option) -> tuple[Any, ...]:
        form = option.form
        standing = standings.get(form)
        if standing is None:
            standing = standings[form] = _standing(form, bounded=wishes.objective != "rank")
        first, second, last = standing
        batch, work = -option.batch.micro_batch_size, round(option.relative_work, 1)
        return *first, asked(option), work, *second[:2], batch, second[2], option.reach.upper_bytes, *last

    return key


_ASKED: dict[str, Callable[[Option], int]] = {
    "fidelity": lambda _: 0,
    "batch": lambda option: -option.batch.micro_batch_size,
    "sequence": lambda option: -option.batch.sequence_length,
    "rank": lambda option: -(option.form.workload.method.rank or 0),
}
_Standing = tuple[tuple[int, float], tuple[bool, int, int], tuple[str, str, int, str]]


def _standing(form: Form, *, bounded: bool) -> _Standing:
    """What no batch changes: kind and share; per-layer update, states and extras; what settles ties."""
    workload = form.workload
    kind, share, states = form.fidelity.key
    if bounded:
        share = max(share, -enough_share(form))
    method = workload.method
    extras = (workload.checkpointing == "full") + (workload.loss == "chunked") + workload.gradient_as_bucket_view
    extras += (workload.attention != "auto") + (method.kernel != "foreach")
    return (
        (kind, round(share, 3)),
        (method.update == "per-layer", states, extras),
        (workload.checkpointing, workload.loss, method.rank or 0, method.name),
    )


def enough_share(form: Form) -> float:
    """The share from which more rank counts no longer."""
    method, model = form.workload.method, form.workload.model
    if METHODS[method.name].parameterisation != "galore":
        return 1.0
    return fidelity(model, replace(method, rank=max(1, model.hidden_size // ENOUGH))).share
