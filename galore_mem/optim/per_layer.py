"""Per-layer mode: every parameter is updated inside backward, so that no two full gradients live at a time."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from galore_mem.errors import UsageError
from galore_mem.optim import geometry
from galore_mem.optim.galore import GaLore, refuse_loss_scaling
from galore_mem.optim.projectors import ACCUMULATED

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle


class PerLayer:
    """Updates parameters as their gradients are born, with gradient accumulation in the low-rank space.

    The loop stays that of ordinary training, with this object in the optimizer's place: `backward()`, then `step()`
    after every backward pass. `backward` does the work; `step` counts passes and ends an accumulation.

    The projection is linear, so accumulating projected gradients equals projecting the accumulated one as long as the
    projector stands: a refresh happens only at the first pass of an accumulation, from that pass's gradient. Between
    passes each projected parameter keeps one low-rank gradient in its state, in the parameter's dtype; parameters
    trained in full keep their gradient, as always.

    Args:
        optimizer: a `GaLore`; its parameters are attached at once.
        accumulation_steps: backward passes per step; the caller divides the loss, as in ordinary training.
        max_norm: clip each parameter's gradient, as the inner optimizer sees it, to this norm.
        norm_scope: `parameter`. `global` is refused: the norm of all gradients is known only after the last of them,
            when the others are gone.

    Raises:
        UsageError: options that cannot work per layer, or an optimizer that is attached already.
    """

    def __init__(
        self,
        optimizer: GaLore,
        *,
        accumulation_steps: int = 1,
        max_norm: float | None = None,
        norm_scope: str = "parameter",
    ) -> None:
        if accumulation_steps < 1:
            raise UsageError(
                f"accumulation_steps={accumulation_steps}", "a step needs a backward pass", "give 1 or more"
            )
        if norm_scope != "parameter":
            _refuse_global_clipping()
        self.optimizer = optimizer
        self.accumulation_steps = accumulation_steps
        self.max_norm = max_norm
        self._passes = 0
        self._met: set[Tensor] = set()
        self._handles: list[RemovableHandle] = []
        self._groups: dict[Tensor, int] = {}
        self.is_ending = False
        """Inside the optimizer's own step, which ends ours."""
        self.attach()

    def attach(self) -> None:
        """Register the hooks; groups added to the optimizer later need a `detach` and an `attach`."""
        if self.optimizer.per_layer is not None:
            raise UsageError(
                "the optimizer is in per-layer mode already", "", "call detach() on the other PerLayer first"
            )
        self.optimizer.per_layer = self
        for index, group in enumerate(self.optimizer.param_groups):
            for parameter in group["params"]:
                self._groups[parameter] = index
                if parameter.requires_grad:
                    self._handles.append(parameter.register_post_accumulate_grad_hook(self._take))

    def detach(self) -> None:
        """Remove the hooks; the optimizer is then an ordinary one with the same states.

        Raises:
            UsageError: an accumulation is under way, whose gradients would be lost.
        """
        if self._passes or self._met:
            raise UsageError(
                "an accumulation is under way", "its gradients would be lost", "call step() to its end first"
            )
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._groups.clear()
        self.optimizer.per_layer = None

    def step(self) -> bool:
        """End one backward pass.

        Returns:
            True where it ended a step: then parameters that met gradients only in earlier passes are updated too.
        """
        self._met.clear()
        self._passes += 1
        if self._passes < self.accumulation_steps:
            return False
        self._passes = 0
        for parameter in self._groups:
            self._update(self._group(parameter), parameter)
        self.is_ending = True
        try:
            self.optimizer.step()  # no gradient is left: it tells schedulers and step hooks
        finally:
            self.is_ending = False
        return True

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing is left to clear after a step; inside an accumulation gradients are kept."""
        if self._passes == 0 and not self._met:
            self.optimizer.zero_grad(set_to_none)

    def clip_grad_norm_(self, max_norm: float) -> None:
        """Refused: see `norm_scope`."""
        _refuse_global_clipping(max_norm)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's; it loads into an ordinary `GaLore` as well.

        Raises:
            UsageError: an accumulation is under way.
        """
        if self._passes or self._met:
            raise UsageError("an accumulation is under way", "a checkpoint would lose its count", "save between steps")
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a per-layer or an ordinary `GaLore` checkpoint."""
        self._passes = 0
        self._met.clear()
        self.optimizer.load_state_dict(state_dict)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Asked by `torch.amp.GradScaler.step`."""
        refuse_loss_scaling()

    def _group(self, parameter: Tensor) -> dict[str, Any]:
        """Looked up each time: loading a checkpoint replaces the groups."""
        return self.optimizer.param_groups[self._groups[parameter]]

    @torch.no_grad()
    def _take(self, parameter: Tensor) -> None:
        """Called by autograd once the parameter's gradient of this pass is complete."""
        if parameter in self._met:
            raise UsageError(
                f"{self.optimizer.name_of(parameter)} got a second gradient before step()",
                "per-layer mode counts backward passes by it",
                "call step() after every backward(); with activation checkpointing use use_reentrant=False",
            )
        self._met.add(parameter)
        group = self._group(parameter)
        last = self._passes == self.accumulation_steps - 1
        if geometry.is_projected(group, parameter):
            self._accumulate(group, parameter)
        if last:
            self._update(group, parameter)

    def _accumulate(self, group: dict[str, Any], parameter: Tensor) -> None:
        """Add the projected gradient to what earlier passes left, and let the full one die."""
        state = self.optimizer.state[parameter]
        held = state.get(ACCUMULATED)
        low = self.optimizer.project_gradient(group, parameter, may_refresh=held is None)
        parameter.grad = None
        if low is not None:
            state[ACCUMULATED] = low if held is None else held.add_(low)

    def _update(self, group: dict[str, Any], parameter: Tensor) -> None:
        if geometry.is_projected(group, parameter):
            low = self.optimizer.state[parameter].pop(ACCUMULATED, None) if parameter in self.optimizer.state else None
            if low is not None:
                self._clip(low)
                self.optimizer.apply_low_rank(group, parameter, low)
        elif parameter.grad is not None:
            self._clip(parameter.grad)
            self.optimizer.step_parameter(group, parameter)
            parameter.grad = None

    def _clip(self, gradient: Tensor) -> None:
        """As torch's `clip_grad_norm_` of this gradient alone, without waiting for the device."""
        if self.max_norm is not None:
            norm = torch.linalg.vector_norm(gradient, dtype=torch.promote_types(gradient.dtype, torch.float32))
            gradient.mul_((self.max_norm / (norm + 1e-6)).clamp_(max=1.0))


def _refuse_global_clipping(max_norm: float | None = None) -> None:
    raise UsageError(
        "per-layer mode cannot clip by the norm of all gradients",
        "it is known only after backward, when parameters are updated and gradients gone",
        f"clip per parameter, PerLayer(..., max_norm={max_norm or 1.0}), or update the whole model at once",
    )
