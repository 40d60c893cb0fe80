"""Which tensors of an optimizer are what."""

from typing import Any

from torch import nn

from galore_mem.optimizer_watch import is_scalar_on_host, kept_tensors


def claim_states(witness: Any, model: nn.Module, optimizer: Any) -> None:  # noqa: ANN401
    """Tell a witness of every state, projector and gradient, and whose they are.

    Args:
        witness: a recorder.
        model: for the parameters' names.
        optimizer: torch's, ours, galore_torch's, or accelerate's wrapper of one.
    """
    optimizer = getattr(optimizer, "optimizer", optimizer)
    states = getattr(optimizer, "state", {})
    for name, parameter in model.named_parameters():
        witness.claim("weights", (parameter,), name)
        witness.claim("gradients", (parameter.grad,))
        for category, tensor, label in kept_tensors(states.get(parameter, {}), name, is_scalar_on_host):
            witness.claim(category, (tensor,), label)
