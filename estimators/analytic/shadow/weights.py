"""A model's parameters in symbols."""

from dataclasses import dataclass
from typing import Literal

from estimators.analytic.shadow.tape import Dims

Role = Literal["linear", "embedding", "head", "norm", "bias", "expert", "router"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A parameter, or one of each layer."""

    name: str
    """As in `named_parameters`, with `*` for the layer's number."""
    dims: Dims
    role: Role
    """`linear` layers can be projected, adapted and factored; an `expert` is a stack of matrices, one for each."""
    transposed: bool = False
    """A linear layer that keeps (in, out), as transformers' Conv1D does."""
    layers: str = "L"
    """The symbol of how many layers have one, where the name says that each has."""


def linear(path: str, out: str, into: str, *, bias: bool = False, transposed: bool = False) -> tuple[Weight, ...]:
    """A linear layer's weight, and its bias."""
    dims = (into, out) if transposed else (out, into)
    weight = Weight(name=f"{path}.weight", dims=dims, role="linear", transposed=transposed)
    return (weight, Weight(name=f"{path}.bias", dims=(out,), role="bias")) if bias else (weight,)


def embedding(path: str, rows: str = "v", columns: str = "h") -> Weight:
    """An embedding's table."""
    return Weight(name=f"{path}.weight", dims=(rows, columns), role="embedding")


def norm(path: str, width: str = "h", *, bias: bool = False) -> tuple[Weight, ...]:
    """A norm's scale, and its shift."""
    scale = Weight(name=f"{path}.weight", dims=(width,), role="norm")
    return (scale, Weight(name=f"{path}.bias", dims=(width,), role="norm")) if bias else (scale,)


def copy_name(name: str, saved_modules: tuple[str, ...]) -> str:
    """What peft calls the trained copy of a parameter in one of `modules_to_save`; empty for all others."""
    for module in saved_modules:
        if name.startswith(f"{module}."):
            return f"{module}.modules_to_save.{name.removeprefix(module).lstrip('.')}"
    return ""


def head(path: str = "lm_head", columns: str = "h", *, tied: bool = False) -> tuple[Weight, ...]:
    """The output head's weight; none of its own where it shares the embedding's."""
    return () if tied else (Weight(name=f"{path}.weight", dims=("v", columns), role="head"),)
