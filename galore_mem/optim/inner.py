"""The inner optimizer, stepped on one tensor at a time; its states live in our dictionaries, not in it."""

import inspect
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from galore_mem.errors import UsageError
from galore_mem.optim.geometry import scalar

InnerFactory = Callable[..., Optimizer]
"""An optimizer class, or anything that takes parameters and options and returns an optimizer."""

COUPLED_DECAY = (
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.ASGD,
    torch.optim.RMSprop,
    torch.optim.Rprop,
    torch.optim.Adagrad,
    torch.optim.Adadelta,
)
"""torch optimizers that add `weight_decay * weight` to the gradient; those with a switch say so in their groups."""
COUPLED_BITSANDBYTES = ("momentum", "rmsprop", "adagrad")
WEIGHT_NORM_BITSANDBYTES = ("lamb", "lars")


@dataclass(frozen=True, slots=True, kw_only=True)
class Landing:
    """What remains to be done to the weight once the inner optimizer has stepped on a zero proxy."""

    update: Tensor
    """The proxy after the step."""
    factor: float
    """Multiplies the update: 1, except where the inner optimizer scales by the weight's RMS and saw zeros."""
    keep: float
    """1 - lr * weight_decay where decay is decoupled, else 1."""


class Inner:
    """Somebody's optimizer, without parameters of its own.

    Args:
        factory: optimizer class or factory.
        options: its keyword arguments.

    Raises:
        UsageError: it needs a closure, or scales its step by the norm of a weight that it would not see.
    """

    def __init__(self, factory: InnerFactory, options: dict[str, Any]) -> None:
        self._recipe = (factory, options)
        self.optimizer = factory([torch.nn.Parameter(torch.zeros(1))], **options)
        self.optimizer.param_groups.clear()
        self.name = f"{type(self.optimizer).__module__}.{type(self.optimizer).__qualname__}"
        closure = inspect.signature(self.optimizer.step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise UsageError(
                f"{self.name} needs a closure",
                "it evaluates the loss inside its step",
                "choose another inner optimizer",
            )
        if getattr(self.optimizer, "optimizer_name", "") in WEIGHT_NORM_BITSANDBYTES:
            raise UsageError(
                f"{self.name} scales its step by the weight's norm",
                "GaLore hands it a low-rank proxy instead of the weight",
                "choose AdamW8bit or another inner optimizer",
            )

    def __reduce__(self) -> tuple[type["Inner"], tuple[InnerFactory, dict[str, Any]]]:
        """Copies and pickles are built anew: all states are elsewhere."""
        return (Inner, self._recipe)

    @property
    def defaults(self) -> dict[str, Any]:
        """The inner optimizer's own defaults."""
        return self.optimizer.defaults

    def step(self, tensor: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Step on `tensor`, whose gradient is in `.grad`.

        Args:
            tensor: a parameter, or a proxy.
            state: the inner optimizer's state of it, empty at first; updated in place.
            group: the inner optimizer's options.
        """
        states: defaultdict[Tensor, Any] = defaultdict(dict)
        if state:
            states[tensor] = state
        self.optimizer.state = states
        self.optimizer.param_groups = [{**group, "params": [tensor]}]
        try:
            self.optimizer.step()
        finally:
            self.optimizer.param_groups = []
            self.optimizer.state = defaultdict(dict)
        after = states.get(tensor, {})
        if after is not state:
            state.update(after)

    def step_low_rank(self, low: Tensor, state: dict[str, Any], group: dict[str, Any], weight: Tensor) -> Landing:
        """Step a proxy that starts at zero, so that what it holds afterwards is the update.

        Args:
            low: the projected gradient; taken over as the proxy's gradient.
            state: the inner optimizer's state for this weight.
            group: the inner optimizer's options.
            weight: the full weight, read where the step's size depends on its RMS.
        """
        proxy = torch.nn.Parameter(torch.zeros_like(low), requires_grad=False)
        proxy.grad = low
        decay = float(group.get("weight_decay") or 0.0)
        group = {**group, "weight_decay": 0.0} if decay else group
        factor = 1.0
        if _is_transformers_adafactor(group):
            rms = root_mean_square(weight)
            group = self._absolute_step(group, state, rms)
            self.step(proxy, state, group)
            state["RMS"].copy_(rms)
        else:
            if _is_torch_adafactor(group):
                factor = _parameter_scale(group, weight)
            self.step(proxy, state, group)
        coupled = decay and self.decay_is_coupled(group)
        keep = 1.0 if coupled or not decay else 1.0 - float(group["lr"]) * decay
        return Landing(update=proxy.data, factor=factor, keep=keep)

    def decay_is_coupled(self, group: dict[str, Any]) -> bool:
        """Whether weight decay is part of the gradient (L2) instead of the update (AdamW)."""
        if "decoupled_weight_decay" in group:
            return not group["decoupled_weight_decay"]
        if getattr(self.optimizer, "optimizer_name", "") in COUPLED_BITSANDBYTES:
            return True
        return isinstance(self.optimizer, COUPLED_DECAY)

    def _absolute_step(self, group: dict[str, Any], state: dict[str, Any], rms: Tensor) -> dict[str, Any]:
        """Options of transformers' Adafactor, with the step size it would choose for the weight as a plain lr."""
        seen = {"step": state.get("step", 0) + 1, "RMS": scalar(rms, 1.0) if group["scale_parameter"] else 0.0}
        size = self.optimizer._get_lr(group, seen)  # type: ignore[attr-defined]
        return {**group, "lr": size, "relative_step": False, "scale_parameter": False, "warmup_init": False}


def _is_transformers_adafactor(group: dict[str, Any]) -> bool:
    return "scale_parameter" in group and "relative_step" in group


def _is_torch_adafactor(group: dict[str, Any]) -> bool:
    return "beta2_decay" in group and "d" in group


def _parameter_scale(group: dict[str, Any], weight: Tensor) -> float:
    """How much larger a step of torch's Adafactor is on the weight, by max(eps2, RMS), than on a zero proxy."""
    least = float(group["eps"][1])
    if least == 0.0:
        raise UsageError(
            "eps=(_, 0.0) leaves Adafactor no step on a proxy",
            "its step is scaled by max(eps[1], RMS)",
            "give eps[1] > 0",
        )
    return max(least, scalar(root_mean_square(weight), 1.0)) / least


def root_mean_square(weight: Tensor) -> Tensor:
    """RMS over all elements as a 0-d tensor, summed in fp32 or better, without a copy of the weight."""
    norm = torch.linalg.vector_norm(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
    return torch.Tensor.div_(norm, weight.numel() ** 0.5)
