"""What an optimizer holds for as long as training lasts: its states and, for GaLore, its projectors.

Figures are those of the optimizers that people run: torch's AdamW and SGD (torch/optim/adam.py, sgd.py), bitsandbytes'
AdamW8bit 0.50 (bitsandbytes/optim/optimizer.py, Optimizer2State), transformers' Adafactor without momentum
(transformers/optimization.py), galore_torch 1.0, and this package's own GaLore. Each is held to the byte by
`tests/estimators/analytic/test_states.py`.

States can live elsewhere. bitsandbytes' paged optimizers take managed memory for parameters of 100,000 elements and
more (`get_state_buffer`); scales and maps stay with torch. torchao's CPUOffloadOptimizer (torchao/optim/cpu_offload.py)
keeps weight, gradient and states of parameters of 4,096 elements and more in host memory, and steps the others on the
card with torch's fused AdamW.

Every nn.Embedding has 8-bit states like any other parameter. Only bitsandbytes' own StableEmbedding, and transformers'
Trainer under `optim="adamw_bnb_8bit"` (not under `galore_adamw_8bit`), ask for fp32 there: `embedding_optim_bits`.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from math import prod

from estimators.analytic.parameters import ParameterGroup, lone
from estimators.analytic.projection import Shape, projection_of
from estimators.analytic.tensors import Tensors
from estimators.workload import Method

MIN_8BIT_ELEMENTS = 4096
"""bitsandbytes keeps fp32 states for smaller tensors (`min_8bit_size`)."""
PAGED_ELEMENTS = 100_000
"""From this size on bitsandbytes pages states."""
OFFLOADED_ELEMENTS = 4096
"""From this size on torchao's CPUOffloadOptimizer offloads (`minimal_size`)."""
QUANTIZATION_MAP_BYTES = 1024
"""256 fp32 values; one map for each of the two moments."""


@lru_cache(maxsize=65536)
def group_states(group: ParameterGroup, method: Method) -> tuple[Tensors, ...]:
    """Everything that the parameters of one group hold resident after the first step.

    Args:
        group: parameters of one shape; frozen ones hold nothing.
        method: the optimizer and its parameterisation.

    Returns:
        Tensors in the order in which the optimizer makes them, projectors first; `count` is that of the whole group.
    """
    if not group.trainable:
        return ()
    group = as_stepped(group, method)
    shape = projection_of(group, method).low_rank_shape if group.projected else group.shape
    return (*_projectors(group, method), *_inner_states(group, method, shape))


def master_weights(group: ParameterGroup, method: Method) -> tuple[Tensors, ...]:
    """The fp32 copies that an optimizer with master weights makes when it is built."""
    if not method.master_weights or not group.trainable:
        return ()
    nbytes = as_stepped(group, method).nbytes
    return (_state("master weight", nbytes, group, "4*mn"),)


def as_stepped(group: ParameterGroup, method: Method) -> ParameterGroup:
    """The parameters that the optimizer steps: in fp32 where it keeps master weights."""
    return replace(group, itemsize=4) if method.master_weights else group


def shared_states(groups: Iterable[ParameterGroup], method: Method) -> tuple[Tensors, ...]:
    """What all parameters share on a device: bitsandbytes' two quantisation maps, if any state is 8-bit.

    Where per-layer updates run one optimizer per parameter, each has maps of its own: these are in `group_states`.
    """
    if _has_own_maps(method) or not any(_has_8bit_states(group, method) for group in dict.fromkeys(map(lone, groups))):
        return ()
    return _quantization_maps(1)


def inner_states(group: ParameterGroup, method: Method) -> tuple[Tensors, ...]:
    """States of a group without its projectors."""
    return tuple(state for state in group_states(group, method) if state.category != "projectors")


def _has_own_maps(method: Method) -> bool:
    """Per-layer updates take one optimizer per parameter, except in this package's GaLore, which steps one for all."""
    return method.update == "per-layer" and (method.parameterisation != "galore" or _is_galore_torch(method))


def _has_8bit_states(group: ParameterGroup, method: Method) -> bool:
    return any(state.name == "absmax1" for state in group_states(group, method))


def _projectors(group: ParameterGroup, method: Method) -> tuple[Tensors, ...]:
    if not group.projected:
        return ()
    projection = projection_of(group, method)
    shapes, itemsize, formula = projection.projector_shapes, group.itemsize, "e*k*R"
    if retains_factors(group, method):
        shapes, itemsize, formula = projection.factor_shapes, 4, "4*k*k, a view keeps the whole factor"
    return tuple(
        Tensors(
            name="projector",
            nbytes=itemsize * prod(shape),
            count=group.count,
            category="projectors",
            formula=formula,
        )
        for shape in shapes
    )


def accumulated_gradients(group: ParameterGroup, method: Method) -> tuple[Tensors, ...]:
    """What a group holds between the backward passes of one accumulation.

    Every trainable parameter keeps its gradient. This package's per-layer mode keeps a projected one in the low-rank
    space instead (galore_mem/optim/per_layer.py, `accumulated_gradient`).
    """
    if not group.trainable:
        return ()
    projects = projects_each_pass(group, method)
    nbytes = group.itemsize * (projection_of(group, method).low_rank_numel if projects else group.numel)
    return (Tensors(name="gradient", nbytes=nbytes, count=group.count, category="gradients", formula="e*mn"),)


def projects_each_pass(group: ParameterGroup, method: Method) -> bool:
    """Whether an accumulation keeps projected gradients: this package's per-layer GaLore does."""
    return group.projected and method.update == "per-layer" and method.implementation == "galore-mem"


def retains_factors(group: ParameterGroup, method: Method) -> bool:
    """Whether the projector is a view that keeps a whole fp32 factor of the decomposition alive.

    galore_torch slices U or Vh. Casting the slice to a half-precision gradient's dtype copies it; an fp32 gradient's
    projector stays a view. GaLoreAdafactor casts the gradient to fp32 before it projects.
    """
    return _is_galore_torch(method) and (group.itemsize == 4 or method.optimizer == "adafactor")


def _inner_states(group: ParameterGroup, method: Method, shape: Shape) -> tuple[Tensors, ...]:
    match method.optimizer:
        case "adamw" if _is_elsewhere(group, method):
            return _offloaded_states(group)
        case "adamw":
            return _adamw_states(group, method, shape)
        case "adamw-8bit":
            return _adamw_8bit_states(group, method, shape)
        case "adamw-32bit":
            return _fp32_states(group, method, shape)
        case "adafactor":
            return _adafactor_states(group, shape)
        case "sgd-momentum":
            return (_state("momentum_buffer", group.nbytes, group, "e*mn"),)
        case "sgd":
            return ()


def _is_elsewhere(group: ParameterGroup, method: Method) -> bool:
    """Whether the states of these parameters live outside torch's allocator."""
    least = {"device": None, "paged": PAGED_ELEMENTS, "host": OFFLOADED_ELEMENTS}[method.states_on]
    return least is not None and group.numel >= least


def _is_galore_torch(method: Method) -> bool:
    return method.parameterisation == "galore" and method.implementation == "galore-torch"


def _state(name: str, nbytes: int, group: ParameterGroup, formula: str, *, on_host: bool = False) -> Tensors:
    return Tensors(
        name=name, nbytes=nbytes, count=group.count, category="optimizer_states", formula=formula, on_host=on_host
    )


def _adamw_states(group: ParameterGroup, method: Method, shape: Shape) -> tuple[Tensors, ...]:
    nbytes = group.itemsize * prod(shape)
    moments = (_state("exp_avg", nbytes, group, "e*mn"), _state("exp_avg_sq", nbytes, group, "e*mn"))
    if _is_galore_torch(method):
        return moments  # counts its steps in a Python int
    # torch keeps `step` on the host unless the kernel reads it on the device ("special device hosting for step").
    return (_state("step", 4, group, "4", on_host=method.kernel != "fused"), *moments)


def _offloaded_states(group: ParameterGroup) -> tuple[Tensors, ...]:
    """Torchao's copies of weight and gradient, and torch's states of the copy; all in host memory."""
    sizes = {"weight": group.nbytes, "gradient": group.nbytes, "step": 4}
    sizes |= {"exp_avg": group.nbytes, "exp_avg_sq": group.nbytes}
    return tuple(
        _state(name, nbytes, group, "4" if name == "step" else "e*mn", on_host=True) for name, nbytes in sizes.items()
    )


def _fp32_states(group: ParameterGroup, method: Method, shape: Shape) -> tuple[Tensors, ...]:
    """Bitsandbytes' 32-bit states."""
    nbytes, on_host = 4 * prod(shape), _is_elsewhere(group, method)
    return tuple(_state(f"state{moment}", nbytes, group, "4*mn", on_host=on_host) for moment in (1, 2))


def _adamw_8bit_states(group: ParameterGroup, method: Method, shape: Shape) -> tuple[Tensors, ...]:
    numel = prod(shape)
    # galore_torch 1.0 passes two arguments by position that bitsandbytes 0.50 reads as max_unorm=100, skip_zeros=True.
    norm = (_state("unorm_vec", 4, group, "4"),) if _is_galore_torch(method) else ()
    if numel < MIN_8BIT_ELEMENTS or _has_32bit_embedding(group, method):
        return (*_fp32_states(group, method, shape), *norm)
    on_host = _is_elsewhere(group, method)
    absmax_bytes = 4 * -(-numel // method.quant_blocksize)
    maps = _quantization_maps(group.count) if _has_own_maps(method) else ()
    return (
        *maps,
        *(_state(f"state{moment}", numel, group, "mn", on_host=on_host) for moment in (1, 2)),
        *(_state(f"absmax{moment}", absmax_bytes, group, "4*ceil(mn/blocksize)") for moment in (1, 2)),
        *norm,
    )


def _has_32bit_embedding(group: ParameterGroup, method: Method) -> bool:
    """As transformers' Trainer asks bitsandbytes for (trainer.py, `register_module_override`)."""
    plain = method.parameterisation == "full" and method.embedding_optim_bits == 32
    return plain and group.kind == "embedding"


def _quantization_maps(count: int) -> tuple[Tensors, ...]:
    return tuple(
        Tensors(name=name, nbytes=QUANTIZATION_MAP_BYTES, count=count, category="optimizer_states", formula="1024")
        for name in ("qmap1", "qmap2")
    )


def _adafactor_states(group: ParameterGroup, shape: Shape) -> tuple[Tensors, ...]:
    rms = _state("RMS", 4, group, "4")
    if len(shape) < 2:
        return (_state("exp_avg_sq", 4 * prod(shape), group, "4*n"), rms)
    return (
        _state("exp_avg_sq_row", 4 * prod(shape[:-1]), group, "4*m"),
        _state("exp_avg_sq_col", 4 * prod(shape[:-2] + shape[-1:]), group, "4*n"),
        rms,
    )
