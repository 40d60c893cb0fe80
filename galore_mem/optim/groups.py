"""Parameter groups for a model: which matrices are projected, and a report of what matched."""

import re
import warnings
from collections.abc import Iterable
from typing import Any

from torch import nn

from galore_mem.errors import UsageError
from galore_mem.optim.geometry import as_matrix

ALL_LINEAR = "all-linear"
MATRIX_MODULES = (nn.Linear, nn.modules.conv._ConvNd)


class GaLoreGroups(list[dict[str, Any]]):
    """Two parameter groups, trained in full and projected, with the names of what went where.

    Attributes:
        projected: parameters whose gradients are projected.
        full: parameters trained in full.
        frozen: parameters that are not trained.
        capped: projected ones whose smaller dimension is below the rank, which is then their rank.
        tied: further names of parameters listed once.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], **names: list[str]) -> None:
        super().__init__(groups)
        self.projected = names["projected"]
        self.full = names["full"]
        self.frozen = names["frozen"]
        self.capped = names["capped"]
        self.tied = names["tied"]

    def summary(self) -> str:
        """One line per kind, with counts and the layers' numbers folded."""
        lines = []
        for kind in ("projected", "full", "frozen", "capped", "tied"):
            names: list[str] = getattr(self, kind)
            if names:
                lines.append(f"{kind}: {len(names)} ({', '.join(_folded(names))})")
        return "\n".join(lines)


def _folded(names: list[str]) -> list[str]:
    return list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in names))


def galore_param_groups(
    model: nn.Module,
    target_modules: str | Iterable[str] = ALL_LINEAR,
    rank: int = 128,
    **options: Any,  # noqa: ANN401  (GaLore's and the inner optimizer's options for the projected group)
) -> GaLoreGroups:
    """Groups for `GaLore` from a model's parameters; tied and frozen ones are handled, each parameter once.

    A pattern matches a module whose dotted name contains it, or whose whole name it matches as a regular expression,
    as transformers' `optim_target_modules` does. `all-linear` means every linear layer except the output head. Linear
    layers, transformers' Conv1D and convolutions can be projected; embeddings, norms and biases are trained in full.

    Args:
        model: the model, on any device.
        target_modules: one pattern or several.
        rank: directions kept per matrix.
        options: further options of the projected group, for instance `scale` or `update_proj_gap`.

    Returns:
        `[full, projected]`, with named parameters and a report.

    Raises:
        UsageError: nothing matched, or a pattern is no valid expression.
    """
    patterns = [target_modules] if isinstance(target_modules, str) else list(target_modules)
    targets, used = _targets(model, patterns)
    for pattern in patterns:
        if pattern not in used:
            warnings.warn(f"target_modules: {pattern!r} matches no layer that can be projected", stacklevel=2)
    full: list[tuple[str, nn.Parameter]] = []
    projected: list[tuple[str, nn.Parameter]] = []
    frozen, seen = [], {}
    tied = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    for name, parameter in model.named_parameters():
        tied.remove(name)
        seen[name] = parameter
        if not parameter.requires_grad:
            frozen.append(name)
        else:
            (projected if id(parameter) in targets else full).append((name, parameter))
    if not projected:
        raise UsageError(
            f"target_modules={target_modules!r} matches no trainable linear layer of {type(model).__name__}",
            f"its layers are {', '.join(_layer_names(model)) or 'not linear'}",
            f"give {ALL_LINEAR!r}, part of a layer's name, or a regular expression",
        )
    groups: list[dict[str, Any]] = [{"params": full, "rank": None}] if full else []
    groups.append(
        {"update_proj_gap": 200, "scale": 0.25, "proj_type": "std", **options, "params": projected, "rank": rank}
    )
    return GaLoreGroups(
        groups,
        projected=[name for name, _ in projected],
        full=[name for name, _ in full],
        frozen=frozen,
        capped=[name for name, parameter in projected if min(as_matrix(parameter).shape) < rank],
        tied=tied,
    )


def _targets(model: nn.Module, patterns: list[str]) -> tuple[set[int], set[str]]:
    """Identities of the weights that are meant, and the patterns that meant any."""
    kept_in_full = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    head = _output_head(model)
    targets: set[int] = set()
    used: set[str] = set()
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not _is_matrix_module(module) or not isinstance(weight, nn.Parameter) or id(weight) in kept_in_full:
            continue
        for pattern in patterns:
            if _matches(pattern, name, is_head=module is head or name == "lm_head"):
                used.add(pattern)
                targets.add(id(weight))
    return targets, used


def _is_matrix_module(module: nn.Module) -> bool:
    return isinstance(module, MATRIX_MODULES) or type(module).__name__ == "Conv1D"


def _matches(pattern: str, name: str, *, is_head: bool) -> bool:
    if pattern == ALL_LINEAR:
        return not is_head
    try:
        return pattern in name or re.fullmatch(pattern, name) is not None
    except re.error as error:
        raise UsageError(
            f"target_modules: {pattern!r} is no valid pattern",
            str(error),
            "give part of a name or a regular expression",
        ) from None


def _output_head(model: nn.Module) -> nn.Module | None:
    find = getattr(model, "get_output_embeddings", None)
    head = find() if callable(find) else None
    return head if isinstance(head, nn.Module) else None


def _layer_names(model: nn.Module) -> list[str]:
    names = [name.rsplit(".", 1)[-1] for name, module in model.named_modules() if _is_matrix_module(module)]
    return list(dict.fromkeys(names))[:12]
