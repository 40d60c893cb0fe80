"""Parameters and buffers of a workload's model, grouped by shape and role."""

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from estimators.analytic.families import family_of
from estimators.analytic.quantised import quantised
from estimators.analytic.shadow.weights import copy_name
from estimators.workload import Method, Precision, Workload
from profiles.errors import InputError
from profiles.shapes import ModelShape

Kind = Literal["linear", "embedding", "head", "norm", "bias", "expert", "router", "adapter", "quantisation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterGroup:
    """`count` parameters of one shape and role."""

    name: str
    """As in `named_parameters`, with `*` for the layer index."""
    shape: tuple[int, ...]
    count: int
    kind: Kind
    itemsize: int
    """Bytes per element of the parameter and of its gradient."""
    trainable: bool = True
    projected: bool = False
    """GaLore projects its gradient."""
    transposed: bool = False
    """A linear layer that keeps (in, out), as transformers' Conv1D does."""
    packed: bool = False
    """Two elements in a byte."""

    @property
    def numel(self) -> int:
        """Elements of one of them."""
        product = 1
        for size in self.shape:
            product *= size
        return product

    @property
    def nbytes(self) -> int:
        """Bytes of one of them."""
        return -(-self.numel // 2) if self.packed else self.numel * self.itemsize


@lru_cache(maxsize=1024)
def model_parameters(shape: ModelShape, itemsize: int = 2) -> tuple[ParameterGroup, ...]:
    """Every parameter that transformers builds for `shape`; a tied head shares the embedding and is not listed."""
    sizes = shape_sizes(shape)
    return tuple(
        ParameterGroup(
            name=weight.name,
            shape=tuple(sizes[dim] for dim in weight.dims),
            count=sizes[weight.layers] if "*" in weight.name else 1,
            kind=weight.role,
            itemsize=itemsize,
            transposed=weight.transposed,
        )
        for weight in family_of(shape.model_type).weights(shape)
    )


@lru_cache(maxsize=4096)
def lone(group: ParameterGroup) -> ParameterGroup:
    """One parameter of a group, whatever it is called: many groups differ in nothing else."""
    return replace(group, name="", count=1)


def shape_sizes(shape: ModelShape) -> dict[str, int]:
    """Numbers behind the symbols of a model's weights."""
    return {
        "h": shape.hidden_size,
        "f": shape.intermediate_size,
        "v": shape.vocab_size,
        "n": shape.num_attention_heads,
        "g": shape.num_key_value_heads,
        "d": shape.head_dim,
        "q": shape.num_attention_heads * shape.head_dim,
        "k": shape.num_key_value_heads * shape.head_dim,
        "L": shape.num_hidden_layers,
        "1": 1,
        "2": 2,
        **family_of(shape.model_type).sizes(shape),
    }


def parameter_count(shape: ModelShape) -> int:
    """Parameters of the model, each shared one once."""
    return sum(group.numel * group.count for group in model_parameters(shape))


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a linear layer's parameter is meant by `target_modules`.

    `all-linear` means every linear layer except the output head; any other pattern matches as a part of the module
    path or as a regular expression for the whole of it, as transformers' `optim_target_modules` does.
    """
    module = name.removesuffix(".weight")
    if "all-linear" in patterns and module != "lm_head":
        return True
    if not all(patterns):
        raise InputError(
            "--target-modules has an empty pattern", "it would match every layer", "use all-linear, or mlp"
        )
    path = module.replace("*", "0")
    return any(
        pattern in path or _fullmatch(pattern, path) is not None for pattern in patterns if pattern != "all-linear"
    )


def _fullmatch(pattern: str, path: str) -> re.Match[str] | None:
    try:
        return re.fullmatch(pattern, path)
    except re.error as error:
        raise InputError(
            f"--target-modules {pattern!r} is no valid pattern",
            f"{error}",
            "give a part of a module's name, such as mlp, or a regular expression",
        ) from None


def workload_parameters(workload: Workload) -> tuple[ParameterGroup, ...]:
    """Parameters as the method trains them: targets marked, frozen, given adapters, or replaced by factors.

    Raises:
        InputError: `target_modules` matches no linear layer.
    """
    return parameters_of(workload.model, workload.method, workload.precision)


@lru_cache(maxsize=1024)
def parameters_of(shape: ModelShape, method: Method, precision: Precision) -> tuple[ParameterGroup, ...]:
    """As `workload_parameters`, from what decides it."""
    base, copied = model_parameters(shape, 2 if precision == "bf16" else 4), _copied_modules(shape, method)
    if method.parameterisation == "full":
        return base
    plain = Method(name="galore-adamw", target_modules=method.target_modules)
    if method.parameterisation == "galore" and method != plain:
        return parameters_of(shape, plain, precision)  # GaLore's parameters are what they were, whatever its rank
    if not any(_is_target(group, method) and not copy_name(group.name, copied) for group in base):
        raise InputError(
            f"--target-modules {' '.join(method.target_modules)} matches no linear layer of {shape.name}",
            "GaLore, LoRA and low-rank factors need at least one",
            f"try --target-modules all-linear, or {_some_linear_layers(base)}",
        )
    made = tuple(part for group in base for part in _reparameterised(group, method, copied))
    if not method.quantised:
        return made
    return quantised(made, 4 if precision == "fp32" else 2, double=method.bnb_4bit_use_double_quant)


def _copied_modules(shape: ModelShape, method: Method) -> tuple[str, ...]:
    """Modules that peft copies and trains in full beside LoRA's adapters (task type SEQ_CLS)."""
    return family_of(shape.model_type).saved_modules if method.parameterisation == "lora" else ()


def _some_linear_layers(groups: tuple[ParameterGroup, ...]) -> str:
    names = dict.fromkeys(group.name.split(".")[-2] for group in groups if group.kind == "linear")
    return " ".join(list(names)[:2])


def _is_target(group: ParameterGroup, method: Method) -> bool:
    return group.kind in ("linear", "head") and matches(group.name, method.target_modules)


def _reparameterised(group: ParameterGroup, method: Method, copied: tuple[str, ...]) -> list[ParameterGroup]:
    target, kind = _is_target(group, method), method.parameterisation
    if copy := copy_name(group.name, copied):
        return [replace(group, trainable=False), replace(group, name=copy)]
    if kind == "galore":
        return [replace(group, projected=target)]
    if not target:
        return [replace(group, trainable=kind != "lora")]
    rows, columns = group.shape[::-1] if group.transposed else group.shape
    rank, module = method.rank or 1, group.name.removesuffix(".weight")
    if kind == "low-rank":
        rank = min(rank, rows, columns)
        return [
            replace(group, name=f"{module}.A.weight", shape=(rank, columns), transposed=False),
            replace(group, name=f"{module}.B.weight", shape=(rows, rank), transposed=False),
        ]
    # peft upcasts adapters of half-precision models to fp32 (autocast_adapter_dtype), and does not cap the rank.
    size = 4 if method.adapter_dtype == "fp32" else 2
    adapter = replace(group, kind="adapter", itemsize=size, transposed=False)
    return [
        replace(group, trainable=False),
        replace(adapter, name=f"{module}.lora_A.weight", shape=(rank, columns)),
        replace(adapter, name=f"{module}.lora_B.weight", shape=(rows, rank)),
    ]
