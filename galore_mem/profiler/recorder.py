"""The recorder: a dispatch mode that sees every operator and keeps the lives of the storages they make."""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from galore_mem.profiler import engine
from galore_mem.profiler.outcomes import Outcomes
from galore_mem.profiler.places import Places
from galore_mem.profiler.recording import Life, Recording
from galore_mem.profiler.rules import Rules
from galore_mem.profiler.windows import Windows

_MATMULS = frozenset({"mm", "bmm", "addmm", "baddbmm", "_scaled_mm"})
_DEVICE = torch.ops.prim.device.default


class Recorder(Windows, TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records births and deaths of storages while it is entered.

    A storage lives from the return of the operator that made it until nothing holds it: what a kernel takes and gives
    back inside itself is not seen, except where a rule adds it. Works on fake and on real CPU tensors alike.

    Args:
        rules: what a run on a GPU does that the watched tensors do not.
        vocabulary: width of the head's output, by which logits are told from other tensors; None where unknown.
        fake: the mode of the fake tensors that are watched; None where they are real.
    """

    def __init__(self, rules: Rules, vocabulary: int | None = None, fake: FakeTensorMode | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recording = Recording()
        self.places = Places()
        self.rules = rules
        self._vocabulary = vocabulary
        self._run = Outcomes(fake).run if fake is not None else _run
        self._alive: dict[int, int] = {}
        self._watches: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._terms: dict[int, list[int]] = {}
        """Storages that were added to another one in backward: of the same kind as it."""
        self._scope: list[str] = []
        self._workspaces: set[str] = set()
        self._attention = engine.InsideAttention()
        self._entered = ExitStack()
        self._closed = False

    # What the step tells.

    def enter(self, window: str) -> None:
        """Another window of the step begins."""
        self.window = window
        self.recording.borders.append((len(self.recording.events), self.iteration, window))

    @contextmanager
    def scope(self, category: str) -> Iterator[None]:
        """Whatever is born in here has this category."""
        self._scope.append(category)
        try:
            yield
        finally:
            self._scope.pop()

    def hold(self, category: str, name: str, tensor: Tensor) -> None:
        """A tensor that lives already; call in the order in which they were moved to the device."""
        self._see(tensor, "model", category, name)

    def claim(self, category: str, tensors: Iterable[object], owner: str = "") -> None:
        """Name the category of living tensors' storages, for their whole lives, and whose they are."""
        for tensor in tensors:
            if isinstance(tensor, Tensor):
                number = self.number_of(tensor)
                if number is not None:
                    self._claim(category, number)
                    if owner:
                        self.recording.lives[number].module = owner

    def _claim(self, category: str, number: int) -> None:
        self.recording.lives[number].category = category
        for term in self._terms.pop(number, ()):
            self._claim(category, term)

    def following(self, model: nn.Module) -> Any:  # noqa: ANN401
        """Follow the modules of a model while entered."""
        return self.places.following(model)

    # What torch tells.

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Runs the operator and looks at what it returns."""
        kwargs = kwargs or {}
        if func is _DEVICE and args[0].__class__ is FakeTensor:
            return args[0].fake_device
        in_backward = torch._C._current_graph_task_id() != -1
        if in_backward:
            if self.window in ("forward_end", "loss", "between"):
                self.enter("backward_start")
            self._follow_backward(args)
        name = func._opname
        if name in _MATMULS:
            self._take_workspace("backward" if in_backward else "forward")
        known, result = self.rules.replace(func, args, kwargs)
        if known:
            pass
        elif (
            in_backward
            and func is engine.ADD
            and not torch.is_grad_enabled()  # recomputation under checkpointing adds as the first forward did
            and len(args) == 2
            and isinstance(args[1], Tensor)
        ):
            return self._accumulate(args[0], args[1])
        elif self._attention.now and func is engine.ADD:
            return self._sum_in_place(args[0], args[1])
        elif in_backward and func in engine.REALLY_IN_PLACE and not torch.is_grad_enabled():
            return engine.REALLY_IN_PLACE[func](*args, **kwargs)
        else:
            result = self._run(func, args, kwargs)
        if isinstance(result, Tensor):
            self._see(result, name)
            self._pass_by(self.rules.dropped_inside(func, args, result), name, result)
        elif result is not None:
            made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            kernel = any(leaf.is_floating_point() for leaf in made)
            for leaf in made:
                self._see(leaf, name, beside_numbers=kernel)
        return result

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled while it is recorded: torch need not wrap every call to guard against it."""
        return False

    def __enter__(self) -> Self:
        """Starts to record."""
        self._entered.enter_context(self._attention.watching())
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *failure: Any) -> None:  # noqa: ANN401
        """Looks away."""
        super().__exit__(*failure)  # type: ignore[no-untyped-call]
        self._entered.close()

    def close(self) -> Recording:
        """End the recording: later deaths are not noted."""
        self._closed = True
        self._watches.clear()
        return self.recording

    def _accumulate(self, held: Tensor, arriving: Tensor) -> Tensor:
        if engine.adds_in_place(held, arriving):
            result = self._sum_in_place(held, arriving)
        else:
            result = self._run(engine.ADD, (held, arriving), {})
            self._see(result, "add")
        into = self.number_of(result)
        for term in (held, arriving):
            part = self.number_of(term)
            if into is not None and part is not None and part != into:
                self._terms.setdefault(into, []).append(part)
        return result

    def _sum_in_place(self, held: Tensor, arriving: Tensor) -> Tensor:
        """A new tensor to torch; in the books the sum goes on living as its first term."""
        result: Tensor = self._run(engine.ADD, (held, arriving), {})
        number = self.number_of(held)
        if number is None:
            self._see(result, "add")
            return result
        key = held.untyped_storage()._cdata
        del self._watches[key], self._alive[key]
        self.watch(result.untyped_storage(), number)
        return result

    def number_of(self, tensor: Tensor) -> int | None:
        """The living tensor's storage, by its number in the recording."""
        return self._alive.get(tensor.untyped_storage()._cdata)

    def _follow_backward(self, args: tuple[Any, ...]) -> None:
        """See what reaches a parameter, and move to the window of the layer whose backward runs."""
        if self.window not in ("backward_start", "backward_end"):
            return
        node = torch._C._current_autograd_node()
        if node is not None and not self.places.in_forward and node.name().endswith("AccumulateGrad"):
            self.claim("gradients", args)
        path = self.places.entered or self._node_path()
        if path is not None:
            self.follow_layer(path, self.places.last_layer)

    def _node_path(self) -> str | None:
        node: Any = torch._C._current_autograd_node()
        if node is None:
            return None
        number = node._sequence_nr()
        return self.places.of_node(number) if number < 1 << 62 else None

    @property
    def module(self) -> str:
        """The module whose forward, or whose forward's backward, runs; empty where there is none."""
        if self.places.entered or torch._C._current_graph_task_id() == -1:
            return self.places.entered
        return self._node_path() or ""

    @property
    def category_in_scope(self) -> str:
        """What everything born now is; empty outside of scopes."""
        return self._scope[-1] if self._scope else ""

    def _take_workspace(self, thread: str) -> None:
        """CuBLAS takes its workspace at a thread's first matrix product, and keeps it."""
        if not self.rules.workspace_bytes or thread in self._workspaces:
            return
        self._workspaces.add(thread)
        life = Life(nbytes=self.rules.workspace_bytes, operator="cuBLAS", module="", category="workspaces")
        self._bear(life)

    def _pass_by(self, sizes: tuple[int, ...], operator: str, result: Tensor) -> None:
        """Storages that an operator has made after its result, and dropped."""
        category = self.recording.lives[self.number_of(result) or 0].category if sizes else ""
        lives = [Life(nbytes=size, operator=operator, module=self.module, category=category) for size in sizes]
        made = [self._bear(life) for life in lives]
        self.recording.events.extend(-number - 1 for number in reversed(made))

    def _see(
        self, tensor: Tensor, operator: str, category: str = "", module: str = "", *, beside_numbers: bool = False
    ) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive or storage.nbytes() == 0:
            return
        module = module or self.module
        life = Life(
            nbytes=storage.nbytes(),
            operator=operator,
            module=module,
            category=category or self.category_in_scope or self._category(tensor, module, beside_numbers),
        )
        self.watch(storage, self._bear(life))

    def _category(self, tensor: Tensor, module: str, beside_numbers: bool) -> str:
        """What a storage is unless it is claimed later.

        Integers and truth values are inputs, but for what a kernel returns beside numbers: dropout's mask.
        """
        if self.window in ("clip", "step", "refresh", "layer_update"):
            return "temporaries"
        if self._vocabulary is not None and tensor.dim() and tensor.shape[-1] == self._vocabulary:
            return "logits"
        # A layer's own code runs below its own hooks. A scaled loss and its root are made outside of autograd's engine.
        in_backward = torch._C._current_graph_task_id() != -1
        recomputes = self.places.in_forward or (in_backward and torch.is_grad_enabled())
        if self.window.startswith("backward") and not recomputes:
            return "temporaries"
        if not tensor.is_floating_point() and not beside_numbers and "attn" not in module:
            return "inputs"
        return "activations"

    def _bear(self, life: Life) -> int:
        number = len(self.recording.lives)
        self.recording.lives.append(life)
        self.recording.events.append(number + 1)
        return number

    def watch(self, storage: torch.UntypedStorage, number: int) -> None:
        """Note when a storage dies, as the death of the life of that number."""
        key = storage._cdata
        self._alive[key] = number
        self._watches[key] = weakref.ref(storage, self._burier(key))

    def _burier(self, key: int) -> Callable[[object], None]:
        def bury(_: object) -> None:
            if not self._closed:
                self.recording.events.append(-self._alive.pop(key) - 1)
                self._watches.pop(key)

        return bury


def _run(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
    return func(*args, **kwargs)
