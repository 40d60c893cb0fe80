"""The real model class, with real or fake weights."""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from estimators.workload import Workload
from galore_mem.errors import MissingExtraError, UsageError
from galore_mem.training.config import config_of

_INITIAL_STD = 0.02
"""`initializer_range` of most configurations."""


def build_model(workload: Workload, attention: str, fake: FakeTensorMode | None, device: str = "cpu") -> Any:  # noqa: ANN401
    """Transformers' model for causal language modelling, parameterised as the method trains it, in training mode.

    Args:
        workload: the run.
        attention: `_attn_implementation`.
        fake: weights are made under this mode; None makes and initialises real ones.
        device: where real weights live.

    Raises:
        UsageError: the architecture is unknown, or no layer is meant by `target_modules`.
    """
    from transformers import AutoModelForCausalLM

    config = config_of(workload, attention)
    dtype = torch.bfloat16 if workload.precision == "bf16" else torch.float32
    try:
        with _elsewhere(fake, device):
            model = _reparameterised(AutoModelForCausalLM.from_config(config, dtype=dtype), workload)
    except (ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        raise UsageError(
            f"{workload.model.name} cannot be built", f"transformers says: {error}", "check its config.json"
        ) from None
    model.train()
    if fake is not None:
        _fill(model, fake)
    elif device != "cpu":
        (model.get_base_model() if hasattr(model, "get_base_model") else model).tie_weights()  # accelerate unties them
        _place(model, device)
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
    from accelerate import init_empty_weights

    return init_empty_weights(include_buffers=False)  # type: ignore[no-any-return]


def post_order(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Modules in the order in which `model.to(device)` moves them: children before their parents."""
    for name, child in module.named_children():
        yield from post_order(child, f"{path}.{name}".lstrip("."))
    yield path, module


@torch.no_grad()
def _place(model: nn.Module, device: str) -> None:
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
                new = torch.empty(old.shape, dtype=old.dtype, device=device)
                _initialise(name, new)
                made[id(old)] = nn.Parameter(new, old.requires_grad)
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


def _fill(model: nn.Module, fake: FakeTensorMode) -> None:
    """Give every parameter and buffer a fake tensor in the place of its meta tensor; shared ones stay shared."""
    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for name, old in table.items():
                if old is None:
                    continue
                if id(old) not in made:
                    with fake:
                        new = torch.empty_strided(old.shape, old.stride(), dtype=old.dtype, device="cpu")
                        made[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
                table[name] = made[id(old)]  # type: ignore[assignment]


def _reparameterised(model: Any, workload: Workload) -> Any:  # noqa: ANN401
    kind = workload.method.parameterisation
    if kind in ("lora", "relora"):
        return _with_adapters(model, workload)
    if kind == "low-rank":
        for name in _targets(model, workload):
            _replace(model, name, _factored(model.get_submodule(name), workload.method.rank or 1))
    return model


def _targets(model: nn.Module, workload: Workload) -> list[str]:
    """Names of the linear layers that the method is applied to."""
    from estimators.analytic.parameters import matches

    patterns = workload.method.target_modules
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and matches(name, patterns)]


def _with_adapters(model: Any, workload: Workload) -> Any:  # noqa: ANN401
    """Peft's LoRA; ReLoRA trains embeddings, norms and head beside the adapters."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise MissingExtraError(f"--method {workload.method.name}", "test", "peft") from None
    targets = _targets(model, workload)
    config = LoraConfig(
        r=workload.method.rank, target_modules=targets, lora_dropout=workload.method.lora_dropout, task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*gradient_checkpointing", FutureWarning)  # peft asks by the old name
        adapted = get_peft_model(model, config)
    if workload.method.parameterisation == "relora":
        frozen = {f"{name}.base_layer.weight" for name in targets}
        for name, parameter in adapted.base_model.model.named_parameters():
            parameter.requires_grad_(name not in frozen)
    return adapted


def _factored(linear: nn.Module, rank: int) -> nn.Module:
    """Two factors in the place of a linear layer: `x A.T B.T + bias`."""
    assert isinstance(linear, nn.Linear)
    dtype = linear.weight.dtype
    rank = min(rank, linear.in_features, linear.out_features)
    factors = nn.Sequential()
    factors.add_module("A", nn.Linear(linear.in_features, rank, bias=False, dtype=dtype))
    factors.add_module("B", nn.Linear(rank, linear.out_features, bias=linear.bias is not None, dtype=dtype))
    return factors


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
