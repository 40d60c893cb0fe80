"""The real model class, with real or fake weights."""

import warnings
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from estimators.workload import Workload
from galore_mem.errors import MissingExtraError, UsageError
from galore_mem.training.config import config_of


def build_model(workload: Workload, attention: str, fake: FakeTensorMode | None) -> Any:  # noqa: ANN401
    """Transformers' model for causal language modelling, parameterised as the method trains it, in training mode.

    Args:
        workload: the run.
        attention: `_attn_implementation`.
        fake: weights are made under this mode; None makes and initialises real ones on the CPU.

    Raises:
        UsageError: the architecture is unknown, or no layer is meant by `target_modules`.
    """
    from transformers import AutoModelForCausalLM

    config = config_of(workload, attention)
    dtype = torch.bfloat16 if workload.precision == "bf16" else torch.float32
    try:
        with torch.device("meta") if fake is not None else nullcontext():
            model = _reparameterised(AutoModelForCausalLM.from_config(config, dtype=dtype), workload)
    except (ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        raise UsageError(
            f"{workload.model.name} cannot be built", f"transformers says: {error}", "check its config.json"
        ) from None
    model.train()
    if fake is not None:
        _fill(model, fake)
    if workload.checkpointing == "full":
        # transformers renamed it, and warns of the old name.
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    return model


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
