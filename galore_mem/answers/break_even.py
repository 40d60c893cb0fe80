"""Up to which rank GaLore's states and projectors pay, against another optimizer's states."""

from dataclasses import replace
from functools import lru_cache

from estimators.analytic.parameters import parameters_of
from estimators.analytic.states import group_states, shared_states
from estimators.analytic.tensors import exact_bytes
from estimators.workload import METHODS, Method, Precision
from profiles.shapes import ModelShape


@lru_cache(maxsize=256)
def break_even_rank(model: ModelShape, method: Method, reference: Method, precision: Precision = "bf16") -> int:
    """The largest rank at which a GaLore method's states and projectors take no more than the reference's states.

    States grow with the rank, which the width bounds, so it is found by halving; 0 where no rank takes so little.

    Args:
        model: what is trained.
        method: GaLore; its own rank does not matter.
        reference: what its states are held against, such as `inner_method(method)`.
        precision: of the run.
    """
    most = state_bytes(model, reference, precision)
    low, high = 0, model.hidden_size
    while low < high:
        middle = (low + high + 1) // 2
        if state_bytes(model, replace(method, rank=middle), precision) <= most:
            low = middle
        else:
            high = middle - 1
    return low


def inner_method(method: Method) -> Method:
    """The optimizer inside a GaLore method, over all parameters in full."""
    return Method(
        name=METHODS[method.name].optimizer,
        update=method.update,
        optimizer_kernel=method.optimizer_kernel,
        quant_blocksize=method.quant_blocksize,
    )


def state_bytes(model: ModelShape, method: Method, precision: Precision = "bf16") -> int:
    """States and projectors that a method keeps for the model, as `sum(t.nbytes)` counts them."""
    groups = parameters_of(model, method, precision)
    states = [state for group in groups for state in group_states(group, method)]
    return exact_bytes([*states, *shared_states(groups, method)])
