"""A training step that was not written to be watched: what its modules and optimizers tell by torch's global hooks."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from galore_mem.profiler.windows import replaced
from galore_mem.witness import HOST


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
            stack.enter_context(_refreshes(self._witness))
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
            for key, value in state.items():
                self._claim_state(key, value, name, parameter)

    def _claim_state(self, key: str, value: Any, name: str, parameter: Tensor) -> None:  # noqa: ANN401
        if isinstance(value, Tensor):
            on_host = key == "step" and value.device.type == "cpu"  # torch keeps it there on a GPU as well
            category = HOST if on_host else "projectors" if key.startswith("projector") else "optimizer_states"
            self._hold_new(category, value, f"{name}, {key}" if category == "optimizer_states" else name)
        elif key == "projector":
            matrices = getattr(value, "ortho_matrix", None)
            for matrix in matrices if isinstance(matrices, list) else [matrices]:
                if isinstance(matrix, Tensor):
                    self._hold_new("projectors", matrix, name)

    def _hold_new(self, category: str, tensor: Tensor, owner: str) -> None:
        """Claim a state's tensor; one that lived before the recording began is seen here for the first time."""
        number_of: Callable[[Tensor], int | None] | None = getattr(self._witness, "number_of", None)
        if number_of is not None and number_of(tensor) is None:
            self._witness.hold(category, owner, tensor)
        else:
            self._witness.claim(category, (tensor,), owner)


_NO_FORWARD = frozenset({"between", "backward_start", "backward_end"})


def _refreshes(witness: Any) -> AbstractContextManager[None]:  # noqa: ANN401
    """Tell the witness of refreshes of projectors, this package's and galore_torch's."""
    methods: list[tuple[Any, str]] = []
    ours, theirs = sys.modules.get("galore_mem.optim"), sys.modules.get("galore_torch.galore_projector")
    if ours is not None:
        methods.append((ours.GaLore, "refresh"))
    if theirs is not None:
        methods.append((theirs.GaLoreProjector, "get_orthogonal_matrix"))

    def marked(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def refresh(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            with witness.during("refresh"):
                return original(*args, **kwargs)

        return refresh

    return replaced(methods, marked)
