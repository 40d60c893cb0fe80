"""A training step that was not written to be watched: what its modules and optimizers tell by torch's global hooks."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from galore_mem.optimizer_watch import is_scalar_on_host, kept_tensors, marked_refreshes


class AnyStep:
    """Tells a witness where in a step it is, and what lives.

    Args:
        witness: a Recorder or a StampingWitness.
    """

    def __init__(self, witness: Any) -> None:  # noqa: ANN401
        self._witness = witness
        self._names: dict[int, str] = {}
        """Of parameters, by identity."""
        self._adopted: set[int] = set()
        self._outer: list[str] = []
        """Windows that optimizers' steps lie in, one for each that runs."""

    @contextmanager
    def watching(self, model: nn.Module | None, optimizer: Any) -> Iterator[None]:  # noqa: ANN401
        """Watch whatever runs while entered; what is given is known from the beginning."""
        if model is not None:
            self._adopt(model, "")
        if optimizer is not None:
            self._claim_states(optimizer)
        with ExitStack() as stack:
            stack.enter_context(self._witness.places.following_any(self._started))
            stack.enter_context(marked_refreshes(self._witness))
            for handle in (
                register_optimizer_step_pre_hook(self._before_step),
                register_optimizer_step_post_hook(self._after_step),
            ):
                stack.callback(handle.remove)
            yield

    def _started(self, module: nn.Module, name: str) -> None:
        """A module's forward begins, and no other runs."""
        self._adopt(module, name)
        if torch._C._current_graph_task_id() == -1 and self._witness.window in _NO_FORWARD:
            self._witness.enter("forward_end")

    def _adopt(self, module: nn.Module, prefix: str) -> None:
        if id(module) in self._adopted:
            return
        self._adopted.add(id(module))
        for category, named in (("weights", module.named_parameters()), ("buffers", module.named_buffers())):
            for name, tensor in named:
                if id(tensor) not in self._names:
                    self._names[id(tensor)] = ".".join(filter(None, (prefix, name)))
                    self._witness.hold(category, self._names[id(tensor)], tensor)
                if tensor.grad is not None:
                    self._witness.hold("gradients", self._names[id(tensor)], tensor.grad)
        watch = getattr(self._witness, "watch_gradients", None)
        if watch is not None:
            watch(module, accumulates=False)

    def _before_step(self, optimizer: Any, args: object, kwargs: object) -> None:  # noqa: ANN401
        if not self._outer:
            self._claim_states(optimizer)
        self._outer.append(self._witness.window)
        in_backward = torch._C._current_graph_task_id() != -1
        self._witness.enter("layer_update" if in_backward else "step")

    def _after_step(self, optimizer: Any, args: object, kwargs: object) -> None:  # noqa: ANN401
        self._claim_states(optimizer)
        outer = self._outer.pop() if self._outer else "between"
        is_outermost = not self._outer and torch._C._current_graph_task_id() == -1
        self._witness.enter("between" if is_outermost else outer)

    def _claim_states(self, optimizer: Any) -> None:  # noqa: ANN401
        for parameter, state in list(optimizer.state.items()):
            if not isinstance(parameter, Tensor) or not isinstance(state, dict):
                continue
            name = self._names.get(id(parameter), "")
            self._witness.claim("weights", (parameter,), name)
            self._witness.claim("gradients", (parameter.grad,))
            for category, tensor, label in kept_tensors(state, name, is_scalar_on_host):
                self._hold_new(category, tensor, label)

    def _hold_new(self, category: str, tensor: Tensor, owner: str) -> None:
        """Claim a state's tensor; one that lived before the recording began is seen here for the first time."""
        number_of: Callable[[Tensor], int | None] | None = getattr(self._witness, "number_of", None)
        if number_of is not None and number_of(tensor) is None:
            self._witness.hold(category, owner, tensor)
        else:
            self._witness.claim(category, (tensor,), owner)


_NO_FORWARD = frozenset({"between", "backward_start", "backward_end"})
