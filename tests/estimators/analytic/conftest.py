"""Real parameters and real optimizers for the methods that the closed forms describe."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

    from estimators.analytic.parameters import ParameterGroup
    from estimators.workload import Method

RealParameters = list[tuple["ParameterGroup", "torch.nn.Parameter"]]


def _in_model_order(groups: Sequence["ParameterGroup"]) -> Iterable["ParameterGroup"]:
    """Each parameter's group, layer by layer: consecutive groups of one count interleave."""
    start = 0
    while start < len(groups):
        stop = start
        while stop < len(groups) and groups[stop].count == groups[start].count:
            stop += 1
        for _ in range(groups[start].count):
            yield from groups[start:stop]
        start = stop


@pytest.fixture
def real_parameters() -> Callable[[Sequence["ParameterGroup"]], RealParameters]:
    """Parameters with a gradient each, as `named_parameters` would list them."""
    import torch

    def make(groups: Sequence["ParameterGroup"]) -> RealParameters:
        torch.manual_seed(0)
        made: RealParameters = []
        for group in _in_model_order(groups):
            dtype = torch.bfloat16 if group.itemsize == 2 else torch.float32
            parameter = torch.nn.Parameter(torch.randn(group.shape).to(dtype), requires_grad=group.trainable)
            if group.trainable:
                parameter.grad = torch.randn(group.shape).to(dtype)
            made.append((group, parameter))
        return made

    return make


@pytest.fixture
def real_optimizer(monkeypatch: pytest.MonkeyPatch) -> Callable[["Method", RealParameters], "torch.optim.Optimizer"]:
    """The optimizer that a method names, over parameters; its settings are those of transformers' Trainer."""
    import torch

    # galore_torch synchronises after every 8-bit update, which a build without CUDA refuses.
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)

    def make(method: "Method", parameters: RealParameters) -> torch.optim.Optimizer:
        trainable = [(group, parameter) for group, parameter in parameters if group.trainable]
        if method.parameterisation == "galore":
            make_galore = _galore_torch if method.implementation == "galore-torch" else _galore_mem
            return make_galore(method, trainable)
        return _plain(method, [parameter for _, parameter in trainable])

    return make


KERNELS: dict[str, dict[str, Any]] = {
    "foreach": {"foreach": True},
    "fused": {"fused": True},
    "loop": {"foreach": False},
}


def _plain(method: "Method", parameters: list["torch.nn.Parameter"]) -> "torch.optim.Optimizer":
    import torch

    kernel = KERNELS[method.optimizer_kernel]
    match method.optimizer:
        case "adamw" if method.states_on == "host":
            from galore_mem.training.offload import OffloadedAdamW

            return OffloadedAdamW(parameters, 1e-3)
        case "adamw":
            return torch.optim.AdamW(parameters, **kernel)
        case "sgd":
            return torch.optim.SGD(parameters, **kernel)
        case "sgd-momentum":
            return torch.optim.SGD(parameters, momentum=0.9, **kernel)
        case "adamw-8bit" | "adamw-32bit":
            from bitsandbytes import optim

            from galore_mem.training.offload import page_as_on_gpu

            names = {"paged-adamw-8bit": "PagedAdamW8bit", "paged-adamw-32bit": "PagedAdamW32bit"}
            made: torch.optim.Optimizer = getattr(optim, names.get(method.name, "AdamW8bit"))(parameters)
            page_as_on_gpu(made)
            return made
        case "adafactor":
            from transformers.optimization import Adafactor

            return Adafactor(parameters, lr=1e-3, scale_parameter=False, relative_step=False)  # type: ignore[no-any-return]


def _galore_groups(method: "Method", parameters: RealParameters) -> list[dict[str, Any]]:
    projected = {
        "rank": method.rank,
        "update_proj_gap": method.update_proj_gap,
        "scale": method.scale,
        "proj_type": method.proj_type,
    }
    groups: list[dict[str, Any]] = [
        {"params": [parameter for group, parameter in parameters if not group.projected]},
        {"params": [parameter for group, parameter in parameters if group.projected], **projected},
    ]
    return [group for group in groups if group["params"]]


def _galore_mem(method: "Method", parameters: RealParameters) -> "torch.optim.Optimizer":
    from galore_mem.optim import GaLoreAdafactor, GaLoreAdamW, GaLoreAdamW8bit

    groups = _galore_groups(method, parameters)
    match method.optimizer:
        case "adamw":
            return GaLoreAdamW(groups, **KERNELS[method.optimizer_kernel])
        case "adamw-8bit":
            return GaLoreAdamW8bit(groups)
        case _:
            return GaLoreAdafactor(groups, lr=1e-3)


def _galore_torch(method: "Method", parameters: RealParameters) -> "torch.optim.Optimizer":
    import galore_torch

    groups = _galore_groups(method, parameters)
    match method.optimizer:
        case "adamw":
            return galore_torch.GaLoreAdamW(groups, no_deprecation_warning=True)  # type: ignore[no-any-return]
        case "adamw-8bit":
            return galore_torch.GaLoreAdamW8bit(groups)  # type: ignore[no-any-return]
        case _:
            return galore_torch.GaLoreAdafactor(groups, lr=1e-3, scale_parameter=False, relative_step=False)  # type: ignore[no-any-return]
