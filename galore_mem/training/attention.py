"""Attention as a GPU runs it, on tensors that are on none.

torch's CPU kernels save other tensors than its CUDA kernels, and transformers materialises masks and repeats heads
where CUDA's kernels need neither. The functions here are registered with transformers; each fused kernel is an operator
whose outputs have the shapes and layouts that the CUDA kernel allocates, in its order.

Sources: aten/src/ATen/native/transformers/cuda/{attention,attention_backward}.cu and flash_attn/flash_api.cpp.
"""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from estimators.analytic.attention import CUDNN_HEAD_DIM, FLASH_CAPABILITY, MAX_FUSED_HEAD_DIM
from estimators.analytic.cards import USUAL, CardTraits
from estimators.analytic.efficient_attention import EfficientKernel, efficient_kernel, workspace_elements
from galore_mem.training.heads import ATTENTION_KEY

_LIBRARY = torch.library.Library("galore_mem", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define("fused_attention(Tensor q, Tensor k, Tensor v, str kernel) -> Tensor[]")  # type: ignore[no-untyped-call]
_LIBRARY.define("fused_attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, str kernel) -> Tensor[]")  # type: ignore[no-untyped-call]
_FUSED_NODE = re.compile(r"ScaledDotProduct(Flash|Efficient|Cudnn)Attention")
_BIAS_ALIGNMENT = 16
"""Elements that rows of a bias are padded to (`preprocess_mask`, `pad_bias` in native/transformers/attention.cpp)."""
_NODES_BEHIND_ATTENTION = 4
"""How far a fused kernel's node lies behind what transformers returns: a copy and a transposition."""


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kernel:
    """What a fused kernel keeps and needs besides q, k, v and its output."""

    rows_multiple: int = 1
    """Rows of the log-sum-exp are padded to a multiple of this."""
    seed_elements: tuple[int, ...] = ()
    """64-bit elements of the random state tensors that are saved even without dropout."""
    follows_queries: bool = False
    """Its output has the memory order of the queries (`empty_like`); else it is (b, s, n, d)."""


_KERNELS = {
    "flash": _Kernel(seed_elements=(2, 1), follows_queries=True),
    "efficient": _Kernel(rows_multiple=32, seed_elements=(1, 1)),
    "cudnn": _Kernel(seed_elements=(1, 1), follows_queries=True),
}


def _by_heads(q: Tensor) -> bool:
    """Whether queries lie in memory head after head, as `torch.cat` leaves them, not token after token."""
    return q.stride(1) > q.stride(2)


@torch.library.register_fake("galore_mem::fused_attention")  # type: ignore[untyped-decorator]
def _forward(q: Tensor, k: Tensor, v: Tensor, kernel: str) -> list[Tensor]:
    """Output, log-sum-exp, random state."""
    batch, heads, rows, _ = q.shape
    traits = _KERNELS[kernel]
    width = v.shape[-1]
    if traits.follows_queries and _by_heads(q):
        out = q.new_empty((batch, heads, rows, width))
    else:
        out = _empty_by_token(q, (batch, heads, rows, width))
    sums = q.new_empty((batch, heads, _up(rows, traits.rows_multiple)), dtype=torch.float32)
    return [out, sums, *(q.new_empty((count,), dtype=torch.int64) for count in traits.seed_elements)]


@torch.library.register_fake("galore_mem::fused_attention_backward")  # type: ignore[untyped-decorator]
def _backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, kernel: str) -> list[Tensor]:
    """Gradients of q, k and v, then scratch whose size is known of their shapes."""
    if kernel == "efficient":
        return [_empty_by_token(x, x.shape) for x in (q, k, v)]
    batch, heads, rows, width = q.shape
    made = [torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)]
    if kernel == "flash":
        if _by_heads(q):
            made.append(q.new_empty((batch, rows, heads, width)))  # contiguous_out
        padded, columns = _up(rows, 128), _up(width, 32 if width <= 128 else 64)
        made.append(q.new_empty((batch, heads, padded), dtype=torch.float32))  # softmax_d
        made.append(q.new_empty((batch, heads, padded, columns), dtype=torch.float32))  # dq_accum
        if k.shape[1] < heads:
            made += [k.new_empty((batch, rows, heads, width)) for _ in range(2)]  # dk, dv before the sum over groups
    else:
        made.append(q.new_empty((batch, heads, rows), dtype=torch.float32))  # softmax statistics
    return made


def _empty_by_token(like: Tensor, shape: Sequence[int]) -> Tensor:
    """A tensor (b, n, s, d) that lies in memory token after token."""
    batch, heads, rows, width = shape
    return like.new_empty_strided((batch, heads, rows, width), (rows * heads * width, width, heads * width, 1))


@torch.library.impl("galore_mem::fused_attention", "CPU")
def _forward_on_cpu(q: Tensor, k: Tensor, v: Tensor, kernel: str) -> list[Tensor]:
    """The values of causal attention in the tensors that the CUDA kernel returns; what computes them is not seen."""
    made: list[Tensor] = _forward(q, k, v, kernel)
    out = _causal(q, k, v)[3]
    made[0].copy_(out[..., : v.shape[-1]])
    return made


@torch.library.impl("galore_mem::fused_attention_backward", "CPU")
def _backward_on_cpu(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, kernel: str) -> list[Tensor]:
    made: list[Tensor] = _backward(grad, q, k, v, kernel)
    wide_q, wide_k, wide_v, out, sums = _causal(q, k, v)
    grad = torch.nn.functional.pad(grad, (0, out.shape[-1] - grad.shape[-1]))
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    found = backward(grad, wide_q, wide_k, wide_v, out, sums, 0.0, True, scale=q.shape[-1] ** -0.5)
    for target, values in zip(made, found, strict=False):
        target.copy_(values.unflatten(1, (target.shape[1], -1)).sum(2)[..., : target.shape[-1]])
    return made


def _causal(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Torch's own CPU kernel: queries, keys and values as it takes them, its output and log-sum-exp.

    It wants as many heads of keys as of queries, and values as wide as keys: heads are repeated, and widths filled up
    with zeros, which changes no product.
    """
    groups, width = q.shape[1] // k.shape[1], max(q.shape[-1], v.shape[-1])
    wide = [x.repeat_interleave(q.shape[1] // x.shape[1], 1) if groups > 1 else x for x in (q, k, v)]
    q, k, v = (torch.nn.functional.pad(x, (0, width - x.shape[-1])) for x in wide)
    scale = wide[0].shape[-1] ** -0.5
    out, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True, scale=scale)
    return q, k, v, out, sums


class _Fused(torch.autograd.Function):
    """Saves what the CUDA kernel saves: q, k, v, output, log-sum-exp and random state."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        kernel: str,
        runs: EfficientKernel,
    ) -> Tensor:
        out, *extras = torch.ops.galore_mem.fused_attention(q, k, v, kernel)
        if kernel == "efficient" and runs.sums_output:
            torch.empty_like(out, dtype=torch.float32)
        ctx.kernel, ctx.runs = kernel, runs
        ctx.save_for_backward(q, k, v, out, *extras, *([mask] if mask is not None else []))
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        q, k, v, out, *_ = ctx.saved_tensors
        if ctx.kernel != "cudnn":
            grad = grad.transpose(1, 2).contiguous().transpose(1, 2)
        made = torch.ops.galore_mem.fused_attention_backward(grad, q, k, v, ctx.kernel)
        bias = _bias_gradient(q, k) if ctx.needs_input_grad[3] else None
        if ctx.kernel == "efficient":
            made += _efficient_scratch(grad, q, out, ctx.runs)
        return made[0], made[1], made[2], bias, None, None


def _efficient_scratch(grad: Tensor, q: Tensor, out: Tensor, runs: EfficientKernel) -> list[Tensor]:
    """`delta` and the workspace of the memory-efficient kernel's backward."""
    batch, heads, rows, width = q.shape
    if runs.computes_delta:
        made = [q.new_empty((batch, heads, rows), dtype=torch.float32)]
    else:  # one statement there, whose temporaries live to its end
        factors = [x.transpose(1, 2).float() for x in (out, grad)]
        product = factors[1] * factors[0]
        sums = product.sum(-1)
        made = [sums.transpose(-2, -1).contiguous()]
        del factors, product, sums
    if runs.sums_queries or runs.sums_keys:
        made.append(q.new_empty(workspace_elements(runs, batch, heads, rows, width), dtype=torch.float32))
    return made


def _bias_gradient(q: Tensor, k: Tensor) -> Tensor:
    """Of a mask that is learned, a view of one whose rows are padded (`_efficient_attention_backward`, `grad_bias`)."""
    batch, heads, rows, _ = q.shape
    columns = k.shape[2]
    padded = q.new_zeros((batch, heads, rows, _up(columns, _BIAS_ALIGNMENT)))
    view: Tensor = torch.ops.aten.slice(padded, 3, 0, columns)
    return view


def _as_bias(mask: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """A mask as the memory-efficient kernel takes it: rows padded, spread over batch and heads (`preprocess_mask`)."""
    columns = k.shape[2]
    if columns % _BIAS_ALIGNMENT:
        padded = torch.nn.functional.pad(mask, (0, _up(columns, _BIAS_ALIGNMENT) - columns))
        mask = torch.ops.aten.slice(padded, 3, 0, columns)
    return mask.expand(q.shape[0], q.shape[1], q.shape[2], columns)


def register_on_cuda(kernel: str, mask_scope: Callable[[], Any], seen: Callable[[str], object]) -> None:
    """Let transformers run attention as it does by itself, and watch which kernel torch takes.

    Args:
        kernel: `eager`, or anything else for `scaled_dot_product_attention`.
        mask_scope: a context manager around the making of masks.
        seen: told the kernel's name whenever one ran that keeps a graph.
    """
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def watched(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        out, weights = sdpa_attention_forward(module, *args, **kwargs)
        if out.grad_fn is not None:
            seen(kernel_of(out.grad_fn))
        return out, weights

    AttentionInterface.register(ATTENTION_KEY, _eager if kernel == "eager" else watched)
    _register_mask(kernel, mask_scope)


def _register_mask(kernel: str, mask_scope: Callable[[], Any]) -> None:
    """Masks as transformers makes them; a padding mask is taken to pad something."""
    from transformers import AttentionMaskInterface
    from transformers.masking_utils import eager_mask, sdpa_mask

    def mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:  # noqa: ANN401
        if attention_mask is not None:  # else it would look whether anything is padded
            kwargs |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        with mask_scope():
            make = eager_mask if kernel == "eager" else sdpa_mask
            return make(*args, attention_mask=attention_mask, **kwargs)  # type: ignore[no-any-return]

    AttentionMaskInterface.register(ATTENTION_KEY, mask)


def kernel_of(node: Any) -> str:  # noqa: ANN401
    """The attention kernel that an autograd node, or one of the few before it, belongs to."""
    waiting = [node]
    for _ in range(_NODES_BEHIND_ATTENTION):
        if not waiting:
            break
        node = waiting.pop(0)
        found = _FUSED_NODE.match(node.name())
        if found:
            return {"Flash": "flash", "Efficient": "efficient", "Cudnn": "cudnn"}[found[1]]
        waiting += [behind for behind, _ in node.next_functions if behind is not None]
    return "math"


def register(kernel: str, mask_scope: Callable[[], Any]) -> None:
    """Tell transformers to run attention as `kernel` does.

    Args:
        kernel: `flash`, `efficient`, `cudnn`, `math`, `eager`, or `cpu` for what torch runs on CPU tensors.
        mask_scope: a context manager around the making of masks.
    """
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    AttentionInterface.register(ATTENTION_KEY, _eager if kernel == "eager" else sdpa_attention_forward)
    _register_mask(kernel, mask_scope)


Choose = Callable[[Tensor, Tensor, Tensor, bool], str]
"""The kernel that runs for query, key and value, and whether there is a mask."""


def as_on_cuda(kernel: str | Choose, beside_mask: str = "efficient", card: CardTraits = USUAL) -> Callable[..., Tensor]:
    """`torch.nn.functional.scaled_dot_product_attention` as a CUDA kernel runs it.

    Args:
        kernel: one that runs wherever it can: where values are not as wide as keys, flash gives way to the
            memory-efficient kernel (sdp_utils.cpp). Or what chooses for every call.
        beside_mask: the kernel that runs beside a mask, where `kernel` is a name.
        card: where.
    """
    original = torch.nn.functional.scaled_dot_product_attention
    choose = kernel if callable(kernel) else _unless_it_cannot(kernel, beside_mask)

    def scaled_dot_product_attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if torch.is_autocast_enabled("cpu"):  # it is on autocast's list
            dtype = torch.get_autocast_dtype("cpu")
            query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        if attn_mask is not None and attn_mask.dtype != query.dtype:  # convert_boolean_attn_mask, in every layer
            is_learned = attn_mask.is_floating_point()
            attn_mask = attn_mask.to(query.dtype) if is_learned else torch.zeros_like(attn_mask, dtype=query.dtype)
        chosen = choose(query, key, value, attn_mask is not None)
        if chosen == "math":
            with sdpa_kernel([SDPBackend.MATH]):
                return original(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
        if attn_mask is not None and chosen == "efficient":
            attn_mask = _as_bias(attn_mask, query, key)
        width = max(query.shape[-1], value.shape[-1])
        runs = efficient_kernel(card, query.element_size(), width, dropout_p)
        return _Fused.apply(query, key, value, attn_mask, chosen, runs)  # type: ignore[no-any-return, no-untyped-call]

    return scaled_dot_product_attention


def _unless_it_cannot(kernel: str, beside_mask: str) -> Choose:
    def choose(query: Tensor, key: Tensor, value: Tensor, is_masked: bool) -> str:
        wanted = beside_mask if is_masked else kernel
        return "efficient" if wanted == "flash" and value.shape[-1] != query.shape[-1] else wanted

    return choose


def chosen_on(capability: float, cudnn_is_first: bool) -> Choose:
    """What SDPA chooses on a card, call by call (sdp_utils.cpp); for workloads: `estimators.analytic.attention`."""

    def choose(query: Tensor, key: Tensor, value: Tensor, is_masked: bool) -> str:
        if query.dim() != 4:
            return "math"
        is_half = query.dtype in (torch.bfloat16, torch.float16)
        width = query.shape[-1]
        if is_half and capability >= FLASH_CAPABILITY and width == value.shape[-1]:
            if cudnn_is_first and width <= CUDNN_HEAD_DIM:
                return "cudnn"
            if not is_masked and width <= MAX_FUSED_HEAD_DIM:
                return "flash"
        is_grouped = key.shape[1] < query.shape[1]
        has_bf16 = capability >= FLASH_CAPABILITY or query.dtype != torch.bfloat16
        return "efficient" if has_bf16 and not is_grouped else "math"

    return choose


def is_fused(kernel: str) -> bool:
    """Whether one kernel computes all of attention."""
    return kernel in _KERNELS


def _eager(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    """The model's own eager attention."""
    return sys.modules[type(module).__module__].eager_attention_forward(module, *args, **kwargs)
