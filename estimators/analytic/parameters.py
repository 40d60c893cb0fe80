"""Parameters and buffers of a workload's model, grouped by shape and role."""

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from estimators.workload import Method, Precision, Workload
from profiles.errors import InputError
from profiles.shapes import ModelShape

Kind = Literal["linear", "embedding", "head", "norm", "bias", "adapter"]


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
        return self.numel * self.itemsize


def model_parameters(shape: ModelShape, itemsize: int = 2) -> tuple[ParameterGroup, ...]:
    """Every parameter that transformers builds for `shape`; a tied head shares the embedding and is not listed."""
    layers, hidden, inner = shape.num_hidden_layers, shape.hidden_size, shape.intermediate_size
    queries, keys = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim

    def group(name: str, size: tuple[int, ...], kind: Kind, count: int = layers) -> ParameterGroup:
        return ParameterGroup(name=name, shape=size, count=count, kind=kind, itemsize=itemsize)

    def linear(name: str, size: tuple[int, int], bias: bool) -> list[ParameterGroup]:
        weight = group(f"{name}.weight", size, "linear")
        return [weight, group(f"{name}.bias", size[:1], "bias")] if bias else [weight]

    attention, mlp = "model.layers.*.self_attn", "model.layers.*.mlp"
    groups = [group("model.embed_tokens.weight", (shape.vocab_size, hidden), "embedding", 1)]
    groups += linear(f"{attention}.q_proj", (queries, hidden), shape.qkv_bias)
    groups += linear(f"{attention}.k_proj", (keys, hidden), shape.qkv_bias)
    groups += linear(f"{attention}.v_proj", (keys, hidden), shape.qkv_bias)
    groups += linear(f"{attention}.o_proj", (hidden, queries), shape.output_bias)
    if shape.qk_norm:
        groups.append(group(f"{attention}.q_norm.weight", (shape.head_dim,), "norm"))
        groups.append(group(f"{attention}.k_norm.weight", (shape.head_dim,), "norm"))
    groups += linear(f"{mlp}.gate_proj", (inner, hidden), shape.mlp_bias)
    groups += linear(f"{mlp}.up_proj", (inner, hidden), shape.mlp_bias)
    groups += linear(f"{mlp}.down_proj", (hidden, inner), shape.mlp_bias)
    groups.append(group("model.layers.*.input_layernorm.weight", (hidden,), "norm"))
    groups.append(group("model.layers.*.post_attention_layernorm.weight", (hidden,), "norm"))
    groups.append(group("model.norm.weight", (hidden,), "norm", 1))
    if not shape.tie_word_embeddings:
        groups.append(group("lm_head.weight", (shape.vocab_size, hidden), "head", 1))
    return tuple(groups)


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
    base = model_parameters(shape, 2 if precision == "bf16" else 4)
    if method.parameterisation == "full":
        return base
    if not any(_is_target(group, method) for group in base):
        raise InputError(
            f"--target-modules {' '.join(method.target_modules)} matches no linear layer of {shape.name}",
            "GaLore, LoRA and low-rank factors need at least one",
            "try --target-modules all-linear, or q_proj v_proj",
        )
    return tuple(part for group in base for part in _reparameterised(group, method))


def _is_target(group: ParameterGroup, method: Method) -> bool:
    return group.kind in ("linear", "head") and matches(group.name, method.target_modules)


def _reparameterised(group: ParameterGroup, method: Method) -> list[ParameterGroup]:
    target, kind = _is_target(group, method), method.parameterisation
    if kind == "galore":
        return [replace(group, projected=target)]
    if not target:
        return [replace(group, trainable=kind != "lora")]
    rows, columns = group.shape
    rank, module = method.rank or 1, group.name.removesuffix(".weight")
    if kind == "low-rank":
        rank = min(rank, rows, columns)
        return [
            replace(group, name=f"{module}.A.weight", shape=(rank, columns)),
            replace(group, name=f"{module}.B.weight", shape=(rows, rank)),
        ]
    # peft upcasts adapters of half-precision models to fp32 (autocast_adapter_dtype), and does not cap the rank.
    return [
        replace(group, trainable=False),
        replace(group, name=f"{module}.lora_A.weight", shape=(rank, columns), kind="adapter", itemsize=4),
        replace(group, name=f"{module}.lora_B.weight", shape=(rows, rank), kind="adapter", itemsize=4),
    ]
