"""Which attention kernel runs: what torch's SDPA chooses for a card, a dtype and a mask, or what a person pinned."""

from estimators.analytic.windows import attention_dropout, every_layer_is_masked
from estimators.workload import Workload
from profiles.errors import InputError
from profiles.gpus import Gpu
from profiles.shapes import ConfiguredShape, ModelShape

FLASH_CAPABILITY = 8.0
CUDNN_FIRST = (9.0, 10.0, 10.3)
"""Compute capabilities on which recent torch asks cuDNN first (`check_prefer_cudnn_attention`, from cuDNN 9.15 on)."""
SMALL_CACHE_CAPABILITIES = (8.6, 8.9, 12.0, 12.1)
"""Where flash's backward has no room for heads of 193 to 224 elements."""
MAX_FUSED_HEAD_DIM = 256
CUDNN_HEAD_DIM = 128


def attention_kernel(workload: Workload, gpu: Gpu | None) -> str:
    """The kernel that runs: `flash`, `efficient`, `cudnn`, `math` or `eager`.

    `auto` follows the order in aten/src/ATen/native/transformers/cuda/sdp_utils.cpp (cuDNN first on Hopper and
    B200-class cards, then flash, efficient, math) and what each kernel refuses. Without a card, an Ampere or Ada
    one is meant. The memory-efficient kernel takes grouped key-value heads from torch 2.14 on; here it refuses them, as
    earlier releases do, and `auto` falls back to the larger `math`.

    Raises:
        InputError: the pinned kernel cannot run here.
    """
    asked = workload.attention
    if asked != "auto":
        reason = _refusal(asked, workload, gpu)
        if reason:
            raise InputError(f"--attention {asked} cannot run here", reason, _way_out(workload, gpu))
        return asked
    if has_own_attention(workload.model):
        return "eager"
    order: tuple[str, ...] = ("flash", "efficient", "math")
    if gpu is not None and gpu.vendor == "nvidia" and _capability(gpu) in CUDNN_FIRST:
        order = ("cudnn", *order)
    return next(kernel for kernel in order if not _refusal(kernel, workload, gpu))


def has_own_attention(model: ModelShape) -> bool:
    """Whether the model computes attention from matrix products: what `eager` stands for."""
    return isinstance(model, ConfiguredShape) and model.attention_code in ("eager", "own")


def _only_eager(model: ModelShape) -> str:
    if isinstance(model, ConfiguredShape) and model.attention_code == "eager":
        return f"transformers runs {model.model_type} with eager attention only, which does what its scores need"
    return f"{model.model_type} computes attention by code of its own"


def _capability(gpu: Gpu | None) -> float:
    if gpu is None or gpu.vendor != "nvidia":
        return FLASH_CAPABILITY
    return float(gpu.compute_capability)


def _refusal(kernel: str, workload: Workload, gpu: Gpu | None) -> str:
    """Why a kernel cannot run, or an empty string."""
    model = workload.model
    if has_own_attention(model):
        return "" if kernel == "eager" else _only_eager(model)
    calls_torch = isinstance(model, ConfiguredShape) and model.attention_code == "sdpa"
    if kernel == "eager" and calls_torch:
        return f"{model.model_type} calls torch's SDPA by itself"
    if kernel in ("math", "eager"):
        return ""
    grouped = model.num_key_value_heads < model.num_attention_heads
    if grouped and calls_torch:  # check_batch_size_and_num_heads_dense, without enable_gqa
        return f"{model.model_type} hands fewer heads of keys than of queries to torch, which no fused kernel takes"
    half, masked = workload.compute_itemsize == 2, every_layer_is_masked(workload)
    if kernel in ("flash", "cudnn"):
        if isinstance(model, ConfiguredShape) and model.attention_code == "biased":
            return f"{kernel} attention has no gradient for the learned bias of {model.model_type}'s positions"
        if not half:
            return f"{kernel} attention needs half precision, and this run computes in fp32"
        if _capability(gpu) < FLASH_CAPABILITY:
            name = gpu.name if gpu is not None else "the card"
            return f"{kernel} attention needs compute capability 8.0 or higher, and {name} has {_capability(gpu)}"
        if model.head_dim > (MAX_FUSED_HEAD_DIM if kernel == "flash" else CUDNN_HEAD_DIM):
            return f"{kernel} attention does not take heads of {model.head_dim}"
        if kernel == "flash" and _capability(gpu) in SMALL_CACHE_CAPABILITIES and 192 < model.head_dim <= 224:
            return f"flash attention does not train heads of {model.head_dim} on compute capability {_capability(gpu)}"
        if kernel == "flash" and workload.padding:
            return "flash attention takes no padding mask through torch's SDPA"
        if kernel == "flash" and masked and model.sliding_window is None:
            return f"flash attention takes no mask, and {model.model_type} makes one in every step"
        if kernel == "flash" and masked:
            return f"flash attention takes no mask, and a window of {model.sliding_window:,} tokens is reached"
        if kernel == "cudnn" and attention_dropout(workload) and masked:
            return "cuDNN attention takes no dropout beside a mask"
        return ""
    if workload.precision in ("bf16", "amp-bf16") and _capability(gpu) < FLASH_CAPABILITY:
        return "the memory-efficient kernel takes no bf16 below compute capability 8.0"
    if grouped and not masked:
        return "the memory-efficient kernel takes no grouped key-value heads (transformers passes enable_gqa)"
    return ""


def _way_out(workload: Workload, gpu: Gpu | None) -> str:
    working = [kernel for kernel in ("flash", "efficient", "cudnn", "math") if not _refusal(kernel, workload, gpu)]
    return f"use --attention auto, or one of: {', '.join(working)}" if working else "use --attention auto"
