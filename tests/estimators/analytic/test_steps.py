"""Peaks of optimizer steps against every storage that the real optimizers make."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from estimators.analytic.parameters import ParameterGroup, workload_parameters
from estimators.analytic.steps import parameter_step, whole_step
from estimators.workload import METHODS, Method, OptimizerKernel, ProjType, Workload
from profiles.shapes import ModelShape

torch = pytest.importorskip("torch")

if TYPE_CHECKING:
    from tests.recorder import LiveBytes

KERNELS: tuple[OptimizerKernel, ...] = ("foreach", "fused", "loop")
PROJ_TYPES: tuple[ProjType, ...] = ("std", "reverse_std", "left", "right", "full")
GALORE = ("galore-adamw", "galore-adamw-8bit", "galore-adafactor")


def model(layers: int = 4, *, inner: int = 176, vocabulary: int = 131) -> ModelShape:
    return ModelShape(
        name="tiny",
        model_type="llama",
        hidden_size=72,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=18,
        vocab_size=vocabulary,
        max_position_embeddings=64,
        qkv_bias=True,
    )


def groups_of(method: Method, itemsize: int, **shape: int) -> tuple[ParameterGroup, ...]:
    precision = "bf16" if itemsize == 2 else "fp32"
    return workload_parameters(Workload(model=model(**shape), method=method, precision=precision))  # type: ignore[arg-type]


def states_of(value: object) -> Iterator[Any]:
    """Tensors held by optimizer states, and by the projectors in them."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from states_of(item)


def projectors_of(optimizer: Any) -> Iterator[Any]:  # noqa: ANN401
    for state in optimizer.state.values():
        matrices = getattr(state.get("projector"), "ortho_matrix", [])
        yield from matrices if isinstance(matrices, list) else [matrices]
        yield from (value for name, value in state.items() if name in ("projector_left", "projector_right"))


class Recording:
    """A step of real optimizers, recorded, and what lived by category at the largest moment of each phase."""

    def __init__(self, live: "LiveBytes", weights_bytes: int) -> None:
        self._live = live
        self._weights_bytes = weights_bytes

    def at_peak(self, phase: str) -> dict[str, int]:
        outside = "refresh" if phase == "step" else None
        held = self._live.at_peak(None if phase == "step" else phase, outside=outside, ignoring="elsewhere")
        # A weight that is replaced by a copy lives twice for a while.
        copies = held.pop("weights", 0) - self._weights_bytes
        found = {**held, "temporaries": held.pop("unclaimed", 0), "weights": copies}
        return {name: size for name, size in found.items() if size and name != "unclaimed"}


@pytest.fixture
def record(live_bytes: "type[LiveBytes]", monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recording]:
    """Runs one step of optimizers and records it, with refreshes of projectors as a phase."""
    from galore_torch.galore_projector import GaLoreProjector

    from galore_mem.optim import GaLore

    refreshes = [(GaLoreProjector, "get_orthogonal_matrix"), (GaLore, "refresh")]
    originals = [getattr(owner, name) for owner, name in refreshes]

    def mark(live: "LiveBytes", refresh: Callable[..., Any]) -> Callable[..., Any]:
        def marked(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            with live.phase("refresh"):
                return refresh(*args, **kwargs)

        return marked

    def make(
        optimizer: Any,  # noqa: ANN401
        parameters: Sequence[Any],
        *,
        run: Callable[["LiveBytes"], None] | None = None,
        others: Sequence[Any] = (),
    ) -> Recording:
        maps = getattr(getattr(optimizer, "inner", None), "optimizer", optimizer)
        if not optimizer.state and hasattr(maps, "name2qmap"):
            # Made on the host with the optimizer, moved to the device with the first 8-bit state: as if made then.
            maps.name2qmap.clear()
        live = live_bytes(
            optimizer_states=states_of(dict(optimizer.state)),
            projectors=projectors_of(optimizer),
            weights=[*parameters, *others],
            gradients=[parameter.grad for parameter in parameters if parameter.grad is not None],
        )
        weights_bytes = live.by_category(live.now)["weights"]
        for (owner, name), original in zip(refreshes, originals, strict=True):
            monkeypatch.setattr(owner, name, mark(live, original))
        with live:
            if run is None:
                optimizer.step()
            else:
                run(live)
            live.claim("optimizer_states", states_of(dict(optimizer.state)))
            live.claim("projectors", projectors_of(optimizer))
            live.claim("elsewhere", _elsewhere(optimizer))
            live.claim("gradients", [parameter.grad for parameter in parameters])
            live.claim("weights", parameters)
        return Recording(live, weights_bytes)

    return make


def _elsewhere(optimizer: Any) -> Iterator[Any]:  # noqa: ANN401
    """Steps that torch keeps on the host, and the maps that own per-layer updates share: no parameter's own."""
    for state in optimizer.state.values():
        if isinstance(state.get("step"), torch.Tensor) and not optimizer.defaults.get("fused"):
            yield state["step"]
        if getattr(optimizer, "per_layer", None) is not None:
            yield from (state[name] for name in ("qmap1", "qmap2") if name in state)


def check(moments: Sequence[Any], recording: Recording) -> None:
    assert moments
    for moment in moments:
        assert dict(moment.by_category) == recording.at_peak(moment.phase)


@pytest.fixture
def two_steps(
    real_parameters: Callable[..., Any], real_optimizer: Callable[..., Any], record: Callable[..., Recording]
) -> Callable[..., None]:
    """Compares a first and a later whole step."""

    def compare(groups: Sequence[ParameterGroup], method: Method) -> None:
        pairs = real_parameters(groups)
        trainable = [parameter for group, parameter in pairs if group.trainable]
        gradients = [parameter.grad.clone() for parameter in trainable]
        optimizer = real_optimizer(method, pairs)
        check(whole_step(tuple(groups), method, "first", refresh=True), record(optimizer, trainable))
        for parameter, gradient in zip(trainable, gradients, strict=True):
            parameter.grad = gradient
        del gradients, gradient
        refreshes = method.update_proj_gap == 1
        recording = record(optimizer, trainable)
        check(whole_step(tuple(groups), method, "steady", refresh=refreshes), recording)

    return compare


@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["adamw", "adamw-8bit", "adafactor", "sgd", "sgd-momentum"])
def test_whole_step(name: str, kernel: OptimizerKernel, itemsize: int, two_steps: Callable[..., None]) -> None:
    method = Method(name=name, optimizer_kernel=kernel)
    two_steps(groups_of(method, itemsize), method)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["lora", "relora", "low-rank"])
def test_whole_step_of_adapters(name: str, kernel: OptimizerKernel, two_steps: Callable[..., None]) -> None:
    method = Method(name=name, optimizer_kernel=kernel, rank=8)
    two_steps(groups_of(method, 2), method)


@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("gap", [1, 200])
@pytest.mark.parametrize("proj_type", PROJ_TYPES)
@pytest.mark.parametrize("name", GALORE)
def test_whole_step_of_galore_torch(
    name: str, proj_type: ProjType, gap: int, itemsize: int, two_steps: Callable[..., None]
) -> None:
    method = Method(name=name, implementation="galore-torch", rank=16, proj_type=proj_type, update_proj_gap=gap)
    two_steps(groups_of(method, itemsize), method)


@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("gap", [1, 200])
@pytest.mark.parametrize("proj_type", PROJ_TYPES)
@pytest.mark.parametrize("name", GALORE)
def test_whole_step_of_own_galore(
    name: str, proj_type: ProjType, gap: int, itemsize: int, two_steps: Callable[..., None]
) -> None:
    method = Method(name=name, rank=16, proj_type=proj_type, update_proj_gap=gap)
    two_steps(groups_of(method, itemsize), method)


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_of_own_galore(kernel: OptimizerKernel, two_steps: Callable[..., None]) -> None:
    method = Method(name="galore-adamw", rank=16, optimizer_kernel=kernel)
    two_steps(groups_of(method, 2), method)


@pytest.mark.parametrize("name", [*GALORE, "adamw", "adafactor"])
@pytest.mark.parametrize(("inner", "vocabulary"), [(16, 9), (16, 1000), (400, 9)])
@pytest.mark.parametrize("layers", [1, 2, 3, 6])
def test_whichever_parameter_is_largest(
    name: str, layers: int, inner: int, vocabulary: int, two_steps: Callable[..., None]
) -> None:
    rank = None if METHODS[name].parameterisation == "full" else 8
    method = Method(name=name, optimizer_kernel="loop", implementation="galore-torch", rank=rank)
    two_steps(groups_of(method, 2, layers=layers, inner=inner, vocabulary=vocabulary), method)


@pytest.fixture
def in_backward(
    real_parameters: Callable[..., Any], real_optimizer: Callable[..., Any], record: Callable[..., Recording]
) -> Callable[..., None]:
    """Compares a first and a later step of one parameter in its hook, called by a real backward."""
    from galore_mem.optim import PerLayer

    def compare(group: ParameterGroup, method: Method) -> None:
        ((_, parameter),) = pairs = real_parameters([replace(group, count=1)])
        optimizer = real_optimizer(method, pairs)
        parameter.grad = None
        factor, one = torch.randn_like(parameter), torch.ones((), dtype=parameter.dtype)
        recorders: list[LiveBytes] = []

        def claim(parameter: Any) -> None:  # noqa: ANN401
            recorders[-1].claim("gradients", [parameter.grad])

        def step(parameter: Any) -> None:  # noqa: ANN401
            optimizer.step()
            claim(parameter)
            optimizer.zero_grad()

        parameter.register_post_accumulate_grad_hook(claim)
        if method.parameterisation == "galore" and method.implementation == "galore-mem":
            layer = PerLayer(optimizer)
        else:
            parameter.register_post_accumulate_grad_hook(step)
            layer = None
        for iteration in ("first", "steady"):
            losses = [(parameter * factor).sum()]

            def run(live: "LiveBytes", losses: list[Any] = losses) -> None:
                recorders.append(live)
                losses.pop().backward(one)

            recording = record(optimizer, [parameter], run=run, others=[factor, one, *losses])
            if layer is not None:
                layer.step()
            check(parameter_step(group, method, iteration, refresh=False), recording)

    return compare


@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("shape", [(176, 72), (72, 176), (96, 96), (40, 48), (5001,)])
@pytest.mark.parametrize("name", [*GALORE, "adamw", "adamw-8bit", "adafactor", "sgd", "sgd-momentum"])
def test_one_parameter_in_its_hook(
    name: str, shape: tuple[int, ...], itemsize: int, in_backward: Callable[..., None]
) -> None:
    galore = METHODS[name].parameterisation == "galore"
    method = Method(name=name, update="per-layer", implementation="galore-torch", rank=8 if galore else None)
    group = ParameterGroup(name="w", shape=shape, count=3, kind="linear", itemsize=itemsize)
    in_backward(replace(group, projected=galore and len(shape) == 2), method)


@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("shape", [(176, 72), (72, 176), (96, 96), (40, 48), (5001,)])
@pytest.mark.parametrize("proj_type", PROJ_TYPES)
@pytest.mark.parametrize("name", GALORE)
def test_one_parameter_in_the_hook_of_own_galore(
    name: str, proj_type: ProjType, shape: tuple[int, ...], itemsize: int, in_backward: Callable[..., None]
) -> None:
    method = Method(name=name, update="per-layer", rank=8, proj_type=proj_type)
    group = ParameterGroup(name="w", shape=shape, count=3, kind="linear", itemsize=itemsize)
    in_backward(replace(group, projected=len(shape) == 2), method)
