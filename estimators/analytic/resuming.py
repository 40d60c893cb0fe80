"""The peak of resuming: a checkpoint of weights and optimizer states beside the model that takes them up.

Meant is the usual script: model and optimizer are built on the device, `torch.load` reads one file with both, and
`load_state_dict` of each takes it up before the file's tensors are let go of. With `map_location="cpu"` tensors reach
the device one by one, and what is there in the end is the most. With the device, the whole file lies there, and then
it matters what a loader copies:

- `nn.Module.load_state_dict` copies into the weights that are there.
- torch's optimizers (torch/optim/optimizer.py, `_process_value_according_to_param_policy`) take the file's tensors
  themselves, but for those whose dtype is not the parameter's. `step` stays where the file was mapped.
- bitsandbytes (optim/optimizer.py, `load_state_dict`) begins with a deepcopy of all states.
- this package's GaLore (galore_mem/optim/checkpoint.py) copies each.
"""

from collections.abc import Iterator

from estimators.analytic.parameters import ParameterGroup
from estimators.analytic.states import as_stepped, group_states, master_weights, shared_states
from estimators.analytic.tensors import Tensors, rounded
from estimators.workload import Method

Groups = tuple[ParameterGroup, ...]
_FP32 = 4


def copied_by_loader(groups: Groups, method: Method) -> int:
    """Live bytes of states that the optimizer's loader makes anew, while the file's are still there."""
    if method.states_on == "host":
        return 0
    states = list(_states(groups, method))
    if method.optimizer in ("adamw-8bit", "adamw-32bit") or _is_own_galore(method):
        copies = sum(rounded(state.nbytes) * state.count for _, state in states)
        return copies + (_own_maps(groups, method) if _is_own_galore(method) else 0)
    return sum(_cast_bytes(group, state, method) for group, state in states if group is not None)


def file_bytes(groups: Groups, method: Method) -> int:
    """Live bytes of a checkpoint on the device: weights, master weights and states, host scalars included."""
    weights = sum(rounded(group.nbytes) * group.count for group in groups)
    if method.states_on == "host":
        return weights
    masters = sum(copy.live_bytes for group in groups for copy in master_weights(group, method))
    return weights + masters + sum(rounded(state.nbytes) * state.count for _, state in _states(groups, method))


def aliased_bytes(groups: Groups, method: Method) -> int:
    """Live bytes of the file's tensors that become the optimizer's own states."""
    if method.states_on == "host" or copied_by_loader(groups, method):
        return 0
    return sum(state.live_bytes for _, state in _states(groups, method))


def _states(groups: Groups, method: Method) -> Iterator[tuple[ParameterGroup | None, Tensors]]:
    for group in groups:
        for state in group_states(group, method):
            yield group, state
    yield from ((None, state) for state in shared_states(groups, method))


def _is_own_galore(method: Method) -> bool:
    return method.parameterisation == "galore" and method.implementation == "galore-mem"


def _own_maps(groups: Groups, method: Method) -> int:
    """Quantisation maps that ours copies for each parameter, before it lets them share one again."""
    maps = sum(rounded(state.nbytes) * state.count for state in shared_states(groups, method))
    alike = sum(
        group.count for group in groups if any(state.name == "absmax1" for state in group_states(group, method))
    )
    return maps * max(alike - 1, 0)


def _cast_bytes(group: ParameterGroup, state: Tensors, method: Method) -> int:
    """Torch casts states to the parameter's dtype: Adafactor's fp32 ones of half-precision parameters are copied."""
    itemsize = as_stepped(group, method).itemsize
    if method.optimizer != "adafactor" or itemsize == _FP32 or state.category != "optimizer_states":
        return 0
    return rounded(state.nbytes * itemsize // _FP32) * state.count
