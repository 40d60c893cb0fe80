"""The real optimizer of every method: torch's, bitsandbytes', transformers', this package's, galore_torch's."""

from typing import Any

import torch
from torch import nn

from estimators.workload import Method
from galore_mem.errors import MissingExtraError
from galore_mem.training.master_weights import MasterWeights
from galore_mem.training.offload import offloaded_adamw, page_as_on_gpu

_KERNELS: dict[str, dict[str, Any]] = {
    "foreach": {"foreach": True},
    "fused": {"fused": True},
    "loop": {"foreach": False},
}
_BITSANDBYTES = {
    "adamw-8bit": "AdamW8bit",
    "paged-adamw-8bit": "PagedAdamW8bit",
    "paged-adamw-32bit": "PagedAdamW32bit",
}
_LEARNING_RATE = 1e-3
_EMBEDDINGS = ("embed", "wte", "wpe")
"""Parts of the names of embeddings."""

Named = list[tuple[str, nn.Parameter]]


def build_optimizer(method: Method, parameters: Named, targets: frozenset[str]) -> torch.optim.Optimizer:
    """The optimizer over these parameters, with the settings of transformers' Trainer.

    Args:
        method: optimizer family and GaLore's settings.
        parameters: those that are trained, by name.
        targets: names of the matrices that GaLore projects.

    Raises:
        MissingExtraError: the library that brings it is not installed.
    """
    if method.parameterisation == "galore":
        groups = _groups(method, parameters, targets)
        optimizer = _galore_torch(method, groups) if method.implementation == "galore-torch" else _own(method, groups)
    else:
        plain = [parameter for _, parameter in parameters]
        if method.master_weights:
            return MasterWeights(plain, lambda masters: _plain(method, masters))
        optimizer = _plain(method, plain)
        if method.optimizer == "adamw-8bit" and method.embedding_optim_bits == 32:
            _keep_embeddings_in_fp32(optimizer, parameters)
    if not any(parameter.is_cuda for _, parameter in parameters):
        make_maps_when_needed(optimizer)
        if method.states_on == "paged":
            page_as_on_gpu(optimizer)
    return optimizer


def make_maps_when_needed(optimizer: Any) -> None:  # noqa: ANN401
    """Bitsandbytes makes its quantisation maps on the host and moves them to the device with the first 8-bit state.

    Here device and host are one, so a move would be none: the map's copy is made then. Values are read while a map is
    made, so a fake one is only as large.
    """
    holder = getattr(getattr(optimizer, "inner", None), "optimizer", optimizer)
    maps = getattr(holder, "name2qmap", None)
    if not maps:
        return
    made = dict(maps)
    maps.clear()

    def fill() -> None:
        fake = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None
        for name, values in made.items():
            maps[name] = torch.empty(values.numel()) if fake else values.clone()

    holder.fill_qmap = fill


def _keep_embeddings_in_fp32(optimizer: Any, parameters: Named) -> None:  # noqa: ANN401
    """As transformers' Trainer has it through bitsandbytes' GlobalOptimManager, which is one for a whole process."""
    embeddings = {id(parameter) for name, parameter in parameters if any(part in name for part in _EMBEDDINGS)}
    usual = optimizer.get_config

    def get_config(group_index: int, index: int, group: dict[str, Any]) -> dict[str, Any]:
        config: dict[str, Any] = usual(group_index, index, group)
        is_embedding = id(group["params"][index]) in embeddings
        return {**config, "optim_bits": 32} if is_embedding else config

    optimizer.get_config = get_config


def _plain(method: Method, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    kernel = _KERNELS[method.kernel]
    match method.optimizer:
        case "adamw" if method.states_on == "host":
            return offloaded_adamw(parameters, _LEARNING_RATE)  # type: ignore[no-any-return]
        case "adamw":
            return torch.optim.AdamW(parameters, lr=_LEARNING_RATE, **kernel)
        case "sgd":
            return torch.optim.SGD(parameters, lr=_LEARNING_RATE, **kernel)
        case "sgd-momentum":
            return torch.optim.SGD(parameters, lr=_LEARNING_RATE, momentum=0.9, **kernel)
        case "adamw-8bit" | "adamw-32bit":
            try:
                from bitsandbytes import optim
            except ImportError:
                raise MissingExtraError(f"--method {method.name}", "train", "bitsandbytes") from None
            return getattr(optim, _BITSANDBYTES[method.name])(parameters, lr=_LEARNING_RATE)  # type: ignore[no-any-return]
        case "adafactor":
            from transformers.optimization import Adafactor

            return Adafactor(parameters, lr=_LEARNING_RATE, scale_parameter=False, relative_step=False)  # type: ignore[no-any-return]


def _groups(method: Method, parameters: Named, targets: frozenset[str]) -> list[dict[str, Any]]:
    settings = {
        "rank": method.rank,
        "update_proj_gap": method.update_proj_gap,
        "scale": method.scale,
        "proj_type": method.proj_type,
    }
    full = [p for name, p in parameters if name not in targets]
    projected = [p for name, p in parameters if name in targets]
    groups: list[dict[str, Any]] = [{"params": full}, {"params": projected, **settings}]
    return [group for group in groups if group["params"]]


def _own(method: Method, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    from galore_mem.optim import GaLoreAdafactor, GaLoreAdamW, GaLoreAdamW8bit

    match method.optimizer:
        case "adamw":
            return GaLoreAdamW(groups, lr=_LEARNING_RATE, **_KERNELS[method.optimizer_kernel])
        case "adamw-8bit":
            return GaLoreAdamW8bit(groups, lr=_LEARNING_RATE)
        case _:
            return GaLoreAdafactor(groups, lr=_LEARNING_RATE)


def _galore_torch(method: Method, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    try:
        import galore_torch
    except ImportError:
        raise MissingExtraError("--implementation galore-torch", "test", "galore_torch") from None
    match method.optimizer:
        case "adamw":
            return galore_torch.GaLoreAdamW(groups, lr=_LEARNING_RATE, no_deprecation_warning=True)  # type: ignore[no-any-return]
        case "adamw-8bit":
            return galore_torch.GaLoreAdamW8bit(groups, lr=_LEARNING_RATE)  # type: ignore[no-any-return]
        case _:
            return galore_torch.GaLoreAdafactor(groups, lr=_LEARNING_RATE, scale_parameter=False, relative_step=False)  # type: ignore[no-any-return]
