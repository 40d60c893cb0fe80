"""One workload, one card, one answer: the analytic footprint, or its totals only."""

from collections.abc import Sequence

from estimators.analytic.attention import attention_kernel
from estimators.analytic.bounds import Margins, Reach, margins_of, reach_within, terms_of
from estimators.analytic.buffers import buffers
from estimators.analytic.cards import card_of
from estimators.analytic.course import Courses, courses_of
from estimators.analytic.demand import Demand
from estimators.analytic.moments import Outliner
from estimators.analytic.parameters import workload_parameters
from estimators.analytic.states import as_stepped, group_states, master_weights, shared_states
from estimators.analytic.structure import played_micro_batches
from estimators.analytic.tensors import exact_bytes
from estimators.footprint import Footprint
from estimators.workload import Batch, Workload, in_batch
from profiles.gpus import SMALL_WORKSPACE_BYTES, Gpu


def outliner_of(workload: Workload, gpu: Gpu | None) -> Outliner:
    """The moments of a workload on a card, in outline.

    Raises:
        InputError: the workload cannot run on the card.
    """
    workspace = gpu.cublas_workspace_recent_bytes if gpu is not None else SMALL_WORKSPACE_BYTES
    return Outliner(workload, attention_kernel(workload, gpu), workspace, card_of(gpu))


class Reaches:
    """Totals of one configuration in batch after batch: what searches need, at a fraction of an estimate's cost.

    Args:
        workload: the run, whose own batch does not matter.
        gpu: the card; None as in `estimate`.
    """

    def __init__(self, workload: Workload, gpu: Gpu | None) -> None:
        self._workload = workload
        self._gpu = gpu
        self._known: dict[tuple[bool, int], tuple[Outliner, Demand, Courses, Margins]] = {}
        """What no batch changes but one that reaches a window, or is gathered over micro-batches."""
        self._found: dict[Batch, Reach] = {}

    def of(self, batch: Batch) -> Reach:
        """The totals in one batch.

        Raises:
            InputError: the workload cannot run on the card.
        """
        found = self._found.get(batch)
        if found is None:
            outliner, demand, courses, margins = self._at(batch)
            course = courses.of(batch)
            found = reach_within(margins, outliner.peak_bytes_in(course), outliner.lasting_bytes, demand.of(course))
            self._found[batch] = found
        return found

    def micro_batches(self, batch: Batch) -> Sequence[int]:
        """The sizes of micro-batches, beside a batch's own, whose totals cost next to nothing; growing.

        Raises:
            InputError: the workload cannot run on the card.
        """
        _, _, courses, _ = self._at(batch)
        return courses.micro_batches(batch)

    def _at(self, batch: Batch) -> tuple[Outliner, Demand, Courses, Margins]:
        window = self._workload.model.sliding_window
        steps = played_micro_batches(self._workload, batch.gradient_accumulation_steps)
        key = (window is not None and batch.sequence_length >= window, steps)
        found = self._known.get(key)
        if found is None or self._workload.eval_batch is not None:
            found = self._known[key] = self._prepared(in_batch(self._workload, batch))
        return found

    def _prepared(self, workload: Workload) -> tuple[Outliner, Demand, Courses, Margins]:
        outliner = outliner_of(workload, self._gpu)
        courses = courses_of(workload, attention_kernel(workload, self._gpu), card_of(self._gpu))
        return outliner, Demand(workload, outliner), courses, margins_of(workload, self._gpu)


def reach(workload: Workload, gpu: Gpu | None = None) -> Reach:
    """Totals only.

    Raises:
        InputError: the workload cannot run on the card.
    """
    return Reaches(workload, gpu).of(workload.batch)


def estimate(workload: Workload, gpu: Gpu | None = None) -> Footprint:
    """What one training step of a workload holds, moment by moment.

    Args:
        workload: the run.
        gpu: the card: it decides the attention kernel, cuBLAS workspaces and the context. Without one, an Ampere or
            Ada consumer card is meant.

    Raises:
        InputError: the workload cannot run on the card.
    """
    outliner = outliner_of(workload, gpu)
    outlines = sorted(outliner.outlines(), key=lambda outline: outline.iteration)
    live = max(outline.total_bytes for outline in outlines)
    demand = Demand(workload, outliner).of(outliner.course)
    found = reach_within(margins_of(workload, gpu), live, outliner.lasting_bytes, demand)
    return Footprint(
        source="analytic",
        moments=tuple(outline.moment(outliner.course) for outline in outlines),
        resident_bytes=_resident_bytes(workload, sum(outliner.buckets.rebuilt)),
        terms=terms_of(workload, found, gpu),
        peak_allocated_bytes=found.live_bytes,
        peak_reserved_bytes=found.reserved_bytes,
        process_bytes=found.process_bytes,
        upper_bytes=found.upper_bytes,
    )


def _resident_bytes(workload: Workload, buckets_bytes: int) -> dict[str, int]:
    """Exact bytes, as `sum(t.nbytes)` counts them; states include the scalars that torch keeps on the host."""
    groups, method = workload_parameters(workload), workload.method
    states = [state for group in groups for state in group_states(group, method)]
    states += shared_states(groups, method)
    states += [copy for group in groups for copy in master_weights(group, method)]
    own = method.update == "whole" and not workload.frees_gradients
    trained = [group for group in groups if group.trainable] if own else []
    return {
        "weights": sum(group.nbytes * group.count for group in groups),
        "buffers": exact_bytes(buffers(workload.model, workload.weight_itemsize)),
        "optimizer_states": exact_bytes(state for state in states if state.category == "optimizer_states"),
        "projectors": exact_bytes(state for state in states if state.category == "projectors"),
        "gradients": buckets_bytes + sum(as_stepped(group, method).nbytes * group.count for group in trained),
    }
