"""Why GaLore is not smaller here: the usual reasons, each with the bytes it costs this run."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from estimators.analytic.estimate import reach
from estimators.analytic.parameters import parameters_of
from estimators.analytic.states import accumulated_gradients, group_states, retains_factors
from estimators.footprint import Footprint
from estimators.workload import Workload
from galore_mem.answers.break_even import break_even_rank, inner_method, state_bytes
from profiles.gpus import Gpu

GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """One reason, answered for one run."""

    topic: str
    """`rank`, `unmatched`, `update`, `views`, `refresh` or `activations`."""
    text: str
    nbytes: int
    """What it costs here; 0 where it costs nothing."""

    def to_dict(self) -> dict[str, Any]:
        """An entry of `remarks` in the JSON output."""
        return {"topic": self.topic, "text": self.text, "bytes": self.nbytes}


def remarks(workload: Workload, footprint: Footprint, gpu: Gpu | None = None) -> tuple[Remark, ...]:
    """Remarks on a GaLore run, the costliest first; none for other methods."""
    if workload.method.parameterisation != "galore":
        return ()
    found = [
        *_rank(workload),
        *_unmatched(workload),
        *_update(workload, footprint, gpu),
        *_views(workload),
        *_refresh(workload, footprint),
        *_activations(footprint),
    ]
    return tuple(sorted(found, key=lambda remark: -remark.nbytes))


def _rank(workload: Workload) -> Iterator[Remark]:
    model, method, precision = workload.model, workload.method, workload.precision
    inner, hidden = inner_method(method), model.hidden_size
    own, full = state_bytes(model, method, precision), state_bytes(model, inner, precision)
    even = break_even_rank(model, method, inner, precision)
    share = f"rank {method.rank} is {(method.rank or 0) / hidden:.0%} of the width {hidden}"
    compared = f"states and projectors take {_gib(own)} GiB where {inner.name} takes {_gib(full)}"
    if own >= full:
        end = f"they take less only up to rank {even:,}" if even else "at no rank do they take less"
        yield Remark(topic="rank", text=f"{share}: {compared}; {end}", nbytes=own - full)
    else:
        yield Remark(topic="rank", text=f"{share}: {compared}; up to rank {even:,} they take less", nbytes=0)


def _unmatched(workload: Workload) -> Iterator[Remark]:
    method = workload.method
    groups = parameters_of(workload.model, method, workload.precision)
    unmatched = [group for group in groups if group.trainable and not group.projected]
    nbytes = sum(state.live_bytes for group in unmatched for state in group_states(group, method))
    total = sum(group.numel * group.count for group in groups)
    share = sum(group.numel * group.count for group in unmatched) / total
    linear = [group.name.removesuffix(".weight") for group in unmatched if group.kind == "linear"]
    names = ", ".join(linear) if linear else "embeddings, norms and the head, as in the paper"
    text = f"{share:.1%} of the parameters are not projected ({names}): their full states take {_gib(nbytes)} GiB"
    yield Remark(topic="unmatched", text=text, nbytes=nbytes)


def _update(workload: Workload, footprint: Footprint, gpu: Gpu | None) -> Iterator[Remark]:
    method = workload.method
    if method.update == "per-layer":
        text, steps = "per-layer updates: gradients die as they are born", workload.batch.gradient_accumulation_steps
        gathered = _gathered_bytes(workload) if steps > 1 else 0
        if steps > 1:
            text += f"; over {steps} micro-batches their projections are gathered: {_gib(gathered)} GiB"
        if workload.clip:
            text += "; they never exist together, so no global norm can clip them"
        yield Remark(topic="update", text=text, nbytes=gathered)
        return
    gradients = footprint.resident_bytes["gradients"]
    text = f"whole-model updates keep every gradient until the step: {_gib(gradients)} GiB"
    steps = workload.batch.gradient_accumulation_steps
    if steps > 1 and method.implementation == "galore-torch":
        yield Remark(topic="update", text=f"{text}; accumulation over {steps} needs them", nbytes=gradients)
        return
    other = reach(replace(workload, method=replace(method, update="per-layer")), gpu).upper_bytes
    saved = footprint.upper_bytes - other
    yield Remark(topic="update", text=f"{text}; --update per-layer takes {_gib(saved)} GiB off", nbytes=max(saved, 0))


def _gathered_bytes(workload: Workload) -> int:
    groups = parameters_of(workload.model, workload.method, workload.precision)
    return sum(entry.live_bytes for group in groups for entry in accumulated_gradients(group, workload.method))


def _views(workload: Workload) -> Iterator[Remark]:
    """galore_torch's projectors of fp32 gradients are views that keep whole factors of the decomposition alive."""
    method = workload.method
    groups = [group for group in parameters_of(workload.model, method, workload.precision) if group.projected]
    if not any(retains_factors(group, method) for group in groups):
        return
    ours = replace(method, implementation="galore-mem")
    model, precision = workload.model, workload.precision
    extra = state_bytes(model, method, precision) - state_bytes(model, ours, precision)
    text = (
        "galore_torch's fp32 projectors are views that keep whole SVD factors alive: "
        f"{_gib(extra)} GiB; --implementation galore-mem stores the projector alone"
    )
    yield Remark(topic="views", text=text, nbytes=extra)


def _refresh(workload: Workload, footprint: Footprint) -> Iterator[Remark]:
    found = [moment for moment in footprint.moments if moment.name == "refresh"]
    if not found:
        return
    largest = max(found, key=lambda moment: moment.live_bytes)
    others = max(moment.live_bytes for moment in footprint.moments if moment.name != "refresh")
    above = largest.live_bytes - others
    scratch = largest.by_category.get("temporaries", 0)
    if above > 0:
        text = f"the refresh decides the peak: {_gib(scratch)} GiB of scratch, {_gib(above)} above the next moment"
    else:
        text = f"the refresh's scratch ({_gib(scratch)} GiB) stays below the peak by {_gib(-above)} GiB"
    yield Remark(topic="refresh", text=text, nbytes=max(above, 0))


def _activations(footprint: Footprint) -> Iterator[Remark]:
    peak = footprint.peak
    nbytes = sum(peak.by_category.get(category, 0) for category in ("activations", "logits", "inputs"))
    text = f"GaLore changes no activation: {_gib(nbytes)} GiB of the peak, {nbytes / peak.live_bytes:.0%}"
    yield Remark(topic="activations", text=text, nbytes=nbytes)


def _gib(nbytes: int) -> str:
    return f"{nbytes / GIB:.2f}"
