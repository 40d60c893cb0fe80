"""The real model class, with real or fake weights."""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from estimators.workload import Workload
from galore_mem.errors import GaloreMemError, MissingExtraError, UsageError
from galore_mem.training.config import config_of
from galore_mem.training.heads import AUTO_CLASSES, PEFT_TASKS, target_modules, trained_head
from galore_mem.training.quantised import compute_dtype, fake_weight, is_four_bit, quantise, quantised_weight
from profiles.errors import InputError

_REFUSALS = (ValueError, AssertionError, RuntimeError, ArithmeticError, LookupError, TypeError, AttributeError)
"""What transformers' model classes raise for configurations that they cannot build."""
_INITIAL_STD = 0.02
"""`initializer_range` of most configurations."""


def build_model(workload: Workload, fake: FakeTensorMode | None, device: str = "cpu") -> Any:  # noqa: ANN401
    """Transformers' model with the head that is trained, parameterised as the method says, in training mode.

    Args:
        workload: the run.
        fake: weights are made under this mode; None makes and initialises real ones.
        device: where real weights live.

    Raises:
        UsageError: the architecture is unknown, or no layer is meant by `target_modules`.
    """
    import transformers

    config = config_of(workload)
    auto = getattr(transformers, AUTO_CLASSES[trained_head(workload.model)])
    dtype = torch.bfloat16 if workload.precision == "bf16" else torch.float32
    try:
        with _elsewhere(fake, device):
            model = _reparameterised(auto.from_config(config, dtype=dtype), workload)
    except (InputError, GaloreMemError, torch.OutOfMemoryError):
        raise
    except _REFUSALS as error:
        raise UsageError(
            f"{workload.model.name} cannot be built",
            f"transformers says: {type(error).__name__}: {error}",
            "check its config.json",
        ) from None
    model.train()
    if fake is not None:
        _fill(model, fake, compute_dtype(workload))
    elif device != "cpu":
        _place(model, device, compute_dtype(workload))
    if workload.checkpointing == "full":
        # transformers renamed it, and warns of the old name.
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    return model


def _elsewhere(fake: FakeTensorMode | None, device: str) -> AbstractContextManager[Any]:
    """Where weights are made before they get their place: fake ones nowhere, a GPU's nowhere but with real buffers."""
    if fake is not None:
        return torch.device("meta")
    if device == "cpu":
        return nullcontext()
    return _weights_nowhere()


@contextmanager
def _weights_nowhere() -> Iterator[None]:
    """While entered, every parameter that a module takes becomes one without data; buffers keep their values."""
    original = nn.Module.register_parameter

    def register(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            parameter = nn.Parameter(parameter.to("meta"), parameter.requires_grad)
        original(module, name, parameter)

    nn.Module.register_parameter = register  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = original  # type: ignore[method-assign]


def post_order(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Modules in the order in which `model.to(device)` moves them: children before their parents."""
    for name, child in module.named_children():
        yield from post_order(child, f"{path}.{name}".lstrip("."))
    yield path, module


@torch.no_grad()
def _place(model: nn.Module, device: str, quantised_dtype: torch.dtype) -> None:
    """Make every weight on the device, in the order of `model.to(device)`, and fill it there; shared ones stay shared.

    Initialising billions of weights on the CPU first would take minutes. The values are those of a fresh model in kind:
    small normal ones for matrices, ones for norms, zeros for biases.
    """
    made: dict[int, torch.Tensor] = {}
    for _, module in post_order(model):
        for name, old in module._parameters.items():
            if old is None:
                continue
            if id(old) not in made:
                packs = is_four_bit(old)
                new = torch.empty(old.shape, dtype=quantised_dtype if packs else old.dtype, device=device)
                _initialise(name, new)
                made[id(old)] = quantised_weight(old, new) if packs else nn.Parameter(new, old.requires_grad)
            module._parameters[name] = made[id(old)]  # type: ignore[assignment]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                made.setdefault(id(buffer), buffer.to(device))
                module._buffers[name] = made[id(buffer)]


def _initialise(name: str, weight: torch.Tensor) -> None:
    if weight.dim() > 1:
        weight.normal_(std=_INITIAL_STD)
    else:
        weight.fill_(0.0 if "bias" in name else 1.0)


def _fill(model: nn.Module, fake: FakeTensorMode, quantised_dtype: torch.dtype) -> None:
    """Give every parameter and buffer a fake tensor in the place of its meta tensor; shared ones stay shared."""
    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for name, old in table.items():
                if old is None:
                    continue
                if id(old) not in made and is_four_bit(old):
                    made[id(old)] = fake_weight(old, quantised_dtype, fake)
                if id(old) not in made:
                    with fake:
                        new = torch.empty_strided(old.shape, old.stride(), dtype=old.dtype, device="cpu")
                        made[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
                table[name] = made[id(old)]  # type: ignore[assignment]


def _reparameterised(model: Any, workload: Workload) -> Any:  # noqa: ANN401
    kind = workload.method.parameterisation
    if workload.method.quantised:
        quantise(model, workload)
    if kind in ("lora", "relora"):
        return _with_adapters(model, workload)
    if kind == "low-rank":
        for name in target_modules(model, workload.method.target_modules):
            _replace(model, name, _factored(model.get_submodule(name), workload.method.rank or 1))
    return model


def _with_adapters(model: Any, workload: Workload) -> Any:  # noqa: ANN401
    """Peft's LoRA; ReLoRA trains embeddings, norms and head beside the adapters."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise MissingExtraError(f"--method {workload.method.name}", "test", "peft") from None
    targets = target_modules(model, workload.method.target_modules)
    restarts, head = workload.method.parameterisation == "relora", trained_head(workload.model)
    config = LoraConfig(
        r=workload.method.rank,
        target_modules=targets,
        lora_dropout=workload.method.lora_dropout,
        # For classifiers peft copies the head and trains the copy; ReLoRA trains the head itself.
        task_type=None if restarts and head == "classification" else PEFT_TASKS[head],
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*gradient_checkpointing", FutureWarning)  # peft asks by the old name
        adapted = get_peft_model(model, config)
    if workload.method.adapter_dtype == "bf16":
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
    if restarts:
        frozen = {f"{name}.base_layer.weight" for name in targets}
        for name, parameter in adapted.base_model.model.named_parameters():
            parameter.requires_grad_(name not in frozen)
    return adapted


def _factored(linear: Any, rank: int) -> nn.Module:  # noqa: ANN401
    """Two factors in the place of a linear layer or of a Conv1D, whose weight is the transpose: `x A.T B.T + bias`."""
    rows, columns = linear.weight.shape
    out, into = (rows, columns) if isinstance(linear, nn.Linear) else (columns, rows)
    dtype, rank = linear.weight.dtype, min(rank, rows, columns)
    factors = nn.Sequential()
    factors.add_module("A", nn.Linear(into, rank, bias=False, dtype=dtype))
    factors.add_module("B", nn.Linear(rank, out, bias=linear.bias is not None, dtype=dtype))
    return factors


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
