"""Resuming as an allocator would see it: the file's tensors, what loaders copy of them, and the states that stay.

What each loader copies is said in `resuming`; here every tensor is told apart.
"""

from collections.abc import Iterator, Sequence

from estimators.analytic.history_ledger import Ledger
from estimators.analytic.parameters import ParameterGroup
from estimators.analytic.resuming import copied_by_loader
from estimators.analytic.states import group_states, master_weights, shared_states
from estimators.analytic.step_history import StepWriter, in_model_order
from estimators.analytic.tensors import Tensors
from estimators.workload import Workload


def write_resume(ledger: Ledger, steps: StepWriter, workload: Workload, groups: Sequence[ParameterGroup]) -> None:
    """Model and optimizer are there; a checkpoint is read, taken up and let go of.

    Args:
        ledger: where to.
        steps: the optimizer, whose states come to be.
        workload: a resumed run.
        groups: all parameters.
    """
    method = workload.method
    if workload.resume == "cpu" or method.states_on == "host":
        file = [ledger.alloc(group.nbytes) for group, _ in in_model_order(groups)] if workload.resume != "cpu" else []
        steps.take_states()
    else:
        file = [ledger.alloc(group.nbytes) for group, _ in in_model_order(groups)]
        for group, _ in in_model_order(groups):
            file += [ledger.alloc(copy.nbytes) for copy in master_weights(group, method)]
        if copied_by_loader(tuple(groups), method):
            file += [ledger.alloc(state.nbytes) for state in _states(workload, groups)]
        else:
            file += [ledger.alloc(state.nbytes) for state in _states(workload, groups) if state.on_host]
        steps.take_states()
    for number in file:
        ledger.free(number)


def _states(workload: Workload, groups: Sequence[ParameterGroup]) -> Iterator[Tensors]:
    """Every tensor of states that the file holds; numbers that training keeps on the host lie there as well."""
    for group, _ in in_model_order(groups):
        yield from group_states(group, workload.method)
    for shared in shared_states(groups, workload.method):
        yield from (shared for _ in range(shared.count))
