"""A workload ready to train: model, optimizers, batches, and one iteration after another."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from estimators.analytic.cards import USUAL, CardTraits
from estimators.analytic.parameters import ParameterGroup
from estimators.analytic.windows import kernel_beside_mask
from estimators.workload import Workload
from galore_mem.optimizer_watch import kept_tensors, marked_refreshes
from galore_mem.training import attention
from galore_mem.training.clipping import clip_gradients
from galore_mem.training.data_parallel import DataParallel
from galore_mem.training.evaluation import evaluate
from galore_mem.training.heads import target_modules
from galore_mem.training.like_cuda import as_if_real, four_bit_products, like_cuda, no_waiting
from galore_mem.training.master_weights import MasterWeights
from galore_mem.training.model import build_model, post_order
from galore_mem.training.offload import OffloadedAdamW, is_managed
from galore_mem.training.optimizers import build_optimizer
from galore_mem.training.quantised import DYNAMIC_MAP, dynamic_map, statistics_of
from galore_mem.training.step import Batcher, Witness, empty_cache, marked_loss, run_backwards
from galore_mem.witness import HOST

_BACKENDS = {
    "math": "MATH",
    "flash": "FLASH_ATTENTION",
    "efficient": "EFFICIENT_ATTENTION",
    "cudnn": "CUDNN_ATTENTION",
}
"""torch.nn.attention's names of the kernels."""


class SessionWitness(Witness, Protocol):
    """Whoever watches whole iterations."""

    def begin(self, iteration: str) -> None:
        """A new iteration starts."""

    def scope(self, category: str) -> Any:  # noqa: ANN401
        """Whatever is born inside has this category."""


class Session:
    """One training run.

    Args:
        workload: the run.
        kernel: the attention kernel that runs: `flash`, `efficient`, `cudnn`, `math`, `eager`, or `cpu` for what torch
            itself runs on CPU tensors.
        fake: the mode that tensors are made under; None for real ones.
        device: where real tensors live. On a GPU `kernel` is pinned, unless it is `auto`, and torch's own kernels run.
        card: whose kernels' scratch is taken, where no GPU runs them.

    Raises:
        GaloreMemError: an unknown architecture, or a missing library.
    """

    def __init__(
        self,
        workload: Workload,
        kernel: str,
        fake: FakeTensorMode | None,
        device: str = "cpu",
        card: CardTraits | None = None,
    ) -> None:
        self.workload = workload
        self._card = card or USUAL
        self.kernel = kernel
        self.device = device
        self.attention_kernels: set[str] = set()
        """On a GPU: those that were seen to run."""
        self.is_fake = fake is not None
        self._masks = masks = _Masks()  # what is registered with transformers stays there: it must not hold the model
        if self.on_gpu:
            attention.register_on_cuda(kernel, lambda: masks.scope(), self.attention_kernels.add)
        else:
            attention.register(kernel, lambda: masks.scope())
        self.model = build_model(workload, fake, device)
        self._dynamic_map = dynamic_map(workload, fake)
        self.named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        targets = target_modules(self.model, workload.method.target_modules)
        self.targets = frozenset(f"{name}.weight" for name in targets)
        """Names of the matrices that the method is applied to."""
        self.optimizers: list[Any] = []
        self.per_layer: Any = None
        self._handles: list[Any] = []
        self._optimizer_of: dict[int, Any] = {}
        """Each parameter's own, where each has one."""
        self._names = {id(parameter): name for name, parameter in self.named}
        self._batcher = Batcher(workload, self.device)
        self._witness: SessionWitness | None = None
        self._passes = 0
        """Micro-batches of this step that have been through backward."""
        self._attach()
        self.data_parallel: DataParallel | None = None
        if workload.data_parallel > 1:
            self._share_gradients()

    @property
    def on_gpu(self) -> bool:
        """Whether the step runs on a real GPU."""
        return self.device != "cpu"

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """Every parameter as the closed forms of optimizers take it, one in each group."""
        return tuple(
            ParameterGroup(
                name=name,
                shape=tuple(parameter.shape),
                count=1,
                kind="linear" if name in self.targets else "norm",
                itemsize=parameter.element_size(),
                trainable=parameter.requires_grad,
                projected=name in self.targets and self.workload.method.parameterisation == "galore",
            )
            for name, parameter in self.model.named_parameters()
        )

    def _attach(self) -> None:
        method = self.workload.method
        if method.update == "whole":
            self.optimizers = [build_optimizer(method, self.named, self.targets)]
            return
        for _, parameter in self.named:
            self._hook(parameter, self._before_update)
        if method.parameterisation == "galore" and method.implementation == "galore-mem":
            from galore_mem.optim import PerLayer

            self.optimizers = [build_optimizer(method, self.named, self.targets)]
            steps = self.workload.batch.gradient_accumulation_steps
            self.per_layer = PerLayer(self.optimizers[0], accumulation_steps=steps)
        else:
            for name, parameter in self.named:
                optimizer = build_optimizer(method, [(name, parameter)], self.targets)
                self.optimizers.append(optimizer)
                self._optimizer_of[id(parameter)] = optimizer
                self._hook(parameter, self._updater(optimizer))
        for _, parameter in self.named:
            self._hook(parameter, self._after_update)

    def _share_gradients(self) -> None:
        inner = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        called = inner.base_model if self.workload.loss == "chunked" else self.model
        self.data_parallel = DataParallel(self.model, [parameter for _, parameter in self.named], self.workload)
        self._handles += self.data_parallel.hooks(called)

    def _hook(self, parameter: Any, hook: Callable[[Tensor], None]) -> None:  # noqa: ANN401
        self._handles.append(parameter.register_post_accumulate_grad_hook(hook))

    def close(self) -> None:
        """Take the hooks off the parameters.

        torch keeps them where Python's collector does not look, so that a model that they hold is never given back.
        """
        own = self.per_layer._handles if self.per_layer is not None else []  # `detach` refuses where a run broke off
        theirs = [handle for optimizer in self.optimizers for handle in getattr(optimizer, "handles", ())]
        for handle in (*self._handles, *own, *theirs):
            handle.remove()
        self._handles.clear()

    def _updater(self, optimizer: Any) -> Callable[[Tensor], None]:  # noqa: ANN401
        def update(parameter: Tensor) -> None:
            if self._passes + 1 == self.workload.batch.gradient_accumulation_steps:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

        return update

    def _before_update(self, parameter: Tensor) -> None:
        if self._witness is not None:
            self._witness.claim("gradients", (parameter.grad,))
            self._around = self._witness.during("layer_update")
            self._around.__enter__()

    def _after_update(self, parameter: Tensor) -> None:
        if self._witness is not None:
            self._claim_states(self._witness, (parameter,))
            self._around.__exit__(None, None, None)

    def weights_in_order(self) -> Iterator[tuple[str, str, Tensor]]:
        """(category, name, tensor) in the order in which `model.to(device)` moves them.

        Children come before their parents, and each module's parameters before its buffers; what optimizers make when
        they are built comes after them.
        """
        seen: set[int] = set()
        for path, module in post_order(self.model):
            for category, table in (("weights", module._parameters), ("buffers", module._buffers)):
                for name, tensor in table.items():
                    if tensor is not None and id(tensor) not in seen:
                        seen.add(id(tensor))
                        yield category, f"{path}.{name}".lstrip("."), tensor
                        for what, held in statistics_of(tensor):
                            yield category, f"{path}.{name}.{what}", held
        if self._dynamic_map is not None:
            yield "weights", DYNAMIC_MAP, self._dynamic_map
        for optimizer in self.optimizers:
            if isinstance(optimizer, MasterWeights):
                for parameter, tensor in optimizer.masters.items():
                    yield "optimizer_states", f"{self._names[id(parameter)]}, master weight", tensor
            if isinstance(optimizer, OffloadedAdamW):
                for parameter, tensor in optimizer.in_host_memory():
                    yield HOST, self._names[id(parameter)], tensor

    def iterate(self, witness: SessionWitness, iteration: str) -> None:
        """One iteration of training: see `step`."""
        self._witness = witness
        self._masks.scope = lambda: witness.scope("inputs")
        witness.begin(iteration)
        if self.data_parallel is not None and not self.data_parallel.is_built:
            self.data_parallel.build(witness)
        with ExitStack() as stack:
            stack.enter_context(marked_loss(self.model, witness))
            stack.enter_context(marked_refreshes(witness))
            stack.enter_context(self._kernels())
            self._iterate(witness)
        if self.workload.eval_batch:
            with self._kernels():
                evaluate(self.model, self.workload, witness, self.device)
        self._witness = None
        self._masks.scope = ExitStack

    def _iterate(self, witness: SessionWitness) -> None:
        per_layer = self.workload.method.update == "per-layer"
        if self.workload.zero_grad == "start" and not per_layer:
            self._zero_grad()
        self._passes = 0
        after = self.per_layer.step if self.per_layer is not None else self._end_pass
        held = run_backwards(self.model, self.workload, self._batcher, witness, self.device, after)
        if not per_layer:
            stepped = self._prepared(witness)
            if self.workload.clip:
                witness.enter("clip")
                clip_gradients(stepped)
            witness.enter("step")
            self.optimizers[0].step()
            self._claim_states(witness, [parameter for _, parameter in self.named])
            witness.enter("between")
        del held
        if self.workload.zero_grad == "end" and not per_layer:
            self._zero_grad()
        if self.workload.empty_cache == "step":
            empty_cache(witness, self.device)

    def _end_pass(self) -> None:
        """One more micro-batch has been through backward: hooks step in the last one, with the sum of its gradients."""
        self._passes += 1

    def _prepared(self, witness: SessionWitness) -> list[Any]:
        """What the optimizer steps, with gradients."""
        optimizer = self.optimizers[0]
        if not isinstance(optimizer, MasterWeights):
            return [parameter for _, parameter in self.named]
        witness.enter("step")
        masters = optimizer.prepare_gradients()
        witness.claim("gradients", [master.grad for master in masters])
        return masters

    def refresh_at_every_step(self) -> None:
        """From now on projectors are recomputed in every step."""
        self.refresh_every(1)

    def refresh_every(self, steps: int) -> None:
        """From now on projectors are recomputed after so many steps."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                if "update_proj_gap" in group:
                    group["update_proj_gap"] = steps
            for state in getattr(optimizer, "state", {}).values():
                if hasattr(state.get("projector"), "update_proj_gap"):
                    state["projector"].update_proj_gap = steps

    def use_length(self, tokens: int) -> None:
        """From now on sequences have so many tokens."""
        self._batcher.sequence_length = tokens

    def _zero_grad(self) -> None:
        self.optimizers[0].zero_grad(set_to_none=True)

    @contextmanager
    def _kernels(self) -> Iterator[None]:
        """What a GPU would run: the attention kernel, dropout; and nothing to wait for."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        beside = kernel_beside_mask(self.workload, self.kernel)
        kernels = dict.fromkeys((self.kernel, beside))
        with ExitStack() as stack:
            if set(kernels) == {"math"} or (self.on_gpu and self.kernel in _BACKENDS):
                stack.enter_context(sdpa_kernel([getattr(SDPBackend, _BACKENDS[name]) for name in kernels]))
            if self.kernel != "cpu" and not self.on_gpu:
                runs = None
                if any(map(attention.is_fused, kernels)):
                    runs = attention.as_on_cuda(self.kernel, beside, self._card)
                stack.enter_context(like_cuda(runs))
            elif self.workload.method.quantised and not self.on_gpu:
                stack.enter_context(four_bit_products())
            if self.is_fake or not torch.cuda.is_available():
                stack.enter_context(no_waiting())
            if self.is_fake:
                stack.enter_context(as_if_real())
            yield

    def _claim_states(self, witness: SessionWitness, parameters: Iterable[Tensor]) -> None:
        for parameter in parameters:
            optimizer = self._optimizer_of.get(id(parameter), self.optimizers[0])
            name = self._names[id(parameter)]
            if parameter in getattr(optimizer, "state", ()):
                claim_state(witness, optimizer.state[parameter], name, on_host=steps_on_host(optimizer))
            # Optimizers put other tensors in the place of a weight or gradient: each is what it stands for.
            witness.claim("weights", (parameter,), name)
            witness.claim("gradients", (parameter.grad,))
        for optimizer in self.optimizers:
            if isinstance(optimizer, OffloadedAdamW):
                witness.claim(HOST, [tensor for _, tensor in optimizer.in_host_memory()])


class _Masks:
    """Around the making of masks."""

    scope: Callable[[], Any] = ExitStack


def claim_state(witness: Witness, state: Mapping[str, Any], owner: str, *, on_host: bool) -> None:
    """Name what an optimizer keeps for one parameter.

    Args:
        witness: who watches.
        state: the parameter's.
        owner: the parameter's name.
        on_host: `step` is a number in host memory.
    """

    def lies_there(key: str, value: Tensor) -> bool:
        return (key == "step" and on_host) or is_managed(value)

    for category, tensor, label in kept_tensors(state, owner, lies_there):
        witness.claim(category, (tensor,), label)


def steps_on_host(optimizer: Any) -> bool:  # noqa: ANN401
    """Whether `step` is on the host: torch keeps it there unless its kernel reads it on the device."""
    return not any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
