"""Optimizer states that live elsewhere than on the card: torchao's offloading, bitsandbytes' managed memory.

On a GPU the libraries themselves run. On fake and CPU tensors they refuse, or fall back to ordinary states; what stands
in for them there makes the same tensors at the same moments, and remembers which of them a GPU would not hold.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from estimators.analytic.states import OFFLOADED_ELEMENTS, PAGED_ELEMENTS
from galore_mem.errors import GaloreMemError

_MANAGED = "galore_mem_managed"
"""Attribute of a tensor that a GPU would have in managed memory."""


def offloaded_adamw(parameters: list[nn.Parameter], learning_rate: float) -> Any:  # noqa: ANN401
    """AdamW in host memory, as torchao's CPUOffloadOptimizer runs it.

    Raises:
        GaloreMemError: a GPU's parameters, and torchao is not installed.
    """
    if not any(parameter.is_cuda for parameter in parameters):
        return OffloadedAdamW(parameters, learning_rate)
    try:
        from torchao.optim import CPUOffloadOptimizer
    except ImportError:
        raise GaloreMemError("--method offload-adamw on a GPU needs torchao", "", "run: pip install torchao") from None
    return CPUOffloadOptimizer(parameters, torch.optim.AdamW, lr=learning_rate)


class OffloadedAdamW(torch.optim.Optimizer):
    """What torchao's CPUOffloadOptimizer does (torchao/optim/cpu_offload.py), where device and host are one.

    Each parameter of 4,096 elements and more has a twin in host memory with a gradient of its own and an optimizer of
    its own. A gradient is copied over as soon as it is there and stays on the device until `zero_grad`; the step runs
    on the twins, and their values are copied back. Smaller parameters are stepped on the device. torchao takes torch's
    fused AdamW for both.
    """

    def __init__(self, parameters: list[nn.Parameter], learning_rate: float) -> None:
        super().__init__(parameters, {"fused": True})
        self.twins: dict[nn.Parameter, Tensor] = {}
        self.handles: list[Any] = []
        self._optimizers: dict[nn.Parameter, torch.optim.Optimizer] = {}
        small = [parameter for parameter in parameters if parameter.numel() < OFFLOADED_ELEMENTS]
        for parameter in parameters:
            if parameter.numel() < OFFLOADED_ELEMENTS:
                continue
            twin = torch.empty_like(parameter).requires_grad_(False)
            twin.grad = torch.empty_like(twin)
            twin.copy_(parameter.detach())
            self.twins[parameter] = twin
            self._optimizers[parameter] = torch.optim.AdamW([twin], lr=learning_rate, fused=True)
            self.handles.append(parameter.register_post_accumulate_grad_hook(self._take_over))  # type: ignore[no-untyped-call]
        self._on_device = torch.optim.AdamW(small, lr=learning_rate, fused=True) if small else None

    def _take_over(self, parameter: Any) -> None:  # noqa: ANN401
        held = self.twins[parameter].grad
        assert held is not None
        held.copy_(parameter.grad)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ANN401
        """One step, on the host but for small parameters."""
        if self._on_device is not None:
            self._on_device.step()
            self.state.update(self._on_device.state)
        for parameter, optimizer in self._optimizers.items():
            if parameter.grad is not None:
                optimizer.step()
                parameter.copy_(self.twins[parameter])
                self.state[parameter] = optimizer.state[self.twins[parameter]]

    def in_host_memory(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Every tensor that a GPU would not hold, with its parameter."""
        for parameter, twin in self.twins.items():
            assert twin.grad is not None
            yield from ((parameter, twin), (parameter, twin.grad))
            yield from ((parameter, value) for value in self.state[parameter].values() if isinstance(value, Tensor))


def page_as_on_gpu(optimizer: Any) -> None:  # noqa: ANN401
    """Let a paged optimizer of bitsandbytes remember which states a GPU would page; elsewhere it pages none."""
    if not getattr(optimizer, "is_paged", False):
        return
    optimizer._cpu_paged_warned = True
    usual = optimizer.get_state_buffer

    def get_state_buffer(parameter: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        buffer: Tensor = usual(parameter, dtype=dtype)
        setattr(buffer, _MANAGED, parameter.numel() >= PAGED_ELEMENTS)
        return buffer

    optimizer.get_state_buffer = get_state_buffer


def is_managed(state: Tensor) -> bool:
    """Whether a state is in managed memory, or would be on a GPU."""
    return bool(getattr(state, "is_paged", False) or getattr(state, _MANAGED, False))
