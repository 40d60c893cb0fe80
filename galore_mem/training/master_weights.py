"""An fp32 copy of every half-precision weight, held by the optimizer: mixed precision without autocast."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class MasterWeights(torch.optim.Optimizer):
    """What Megatron-Core's Float16OptimizerWithFloat16Params does (megatron/core/optimizer/optimizer.py).

    The inner optimizer steps fp32 copies. Before it does, each gradient is cast to fp32, and the model's own is let go
    of; afterwards the copies' values go back into the model. The fp32 gradients stay until `zero_grad`.

    Args:
        parameters: the model's, all of them in half precision.
        make: the inner optimizer over these tensors.
    """

    def __init__(self, parameters: list[nn.Parameter], make: Callable[[list[Any]], torch.optim.Optimizer]) -> None:
        self.masters: dict[nn.Parameter, Tensor] = {p: p.detach().clone().float() for p in parameters}
        self.inner = make(list(self.masters.values()))
        super().__init__(parameters, dict(self.inner.defaults))

    @torch.no_grad()
    def prepare_gradients(self) -> list[Any]:
        """Cast all gradients; returns the copies, whose gradients they are now."""
        for parameter, master in self.masters.items():
            if parameter.grad is not None:
                master.grad = parameter.grad.float()
                parameter.grad = None
        return list(self.masters.values())

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ANN401
        """Step the copies, whose gradients must have been prepared, and copy their values into the model."""
        self.inner.step()
        for parameter, master in self.masters.items():
            parameter.copy_(master)
            self.state[parameter] = self.inner.state[master]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Let go of all gradients."""
        super().zero_grad(set_to_none)
        self.inner.zero_grad(set_to_none)
