"""Which tensors of an optimizer are what."""

from typing import Any

from torch import Tensor, nn


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
        for key, value in states.get(parameter, {}).items():
            _claim(witness, key, value, name)


def _claim(witness: Any, key: str, value: Any, owner: str) -> None:  # noqa: ANN401
    if key.startswith("projector_"):
        witness.claim("projectors", (value,), owner)
    elif key == "projector":  # galore_torch keeps an object
        matrices = getattr(value, "ortho_matrix", None)
        witness.claim("projectors", matrices if isinstance(matrices, list) else (matrices,), owner)
    elif key == "accumulated_gradient":
        witness.claim("gradients", (value,), owner)
    elif isinstance(value, Tensor):
        category = "host" if key == "step" and value.device.type == "cpu" and value.dim() == 0 else "optimizer_states"
        witness.claim(category, (value,), f"{owner}, {key}")
