"""What a GPU run does and CPU tensors do not, put in the place of torch's functions while a step runs.

A function mode would be tidier, but none is active in backward, where checkpointing runs the forward again.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from galore_mem.training.quantised import gemm_4bit

_IN_FP32 = (
    (torch.nn.functional, ("layer_norm", "group_norm", "softmax", "log_softmax")),
    (torch, ("softmax", "log_softmax", "pow", "exp", "rsqrt")),
    (torch.Tensor, ("softmax", "pow", "exp", "rsqrt")),
)
"""Functions that autocast runs in fp32 on CUDA and leaves alone on a CPU (ATen/autocast_mode.h)."""


@contextmanager
def like_cuda(attention: Callable[..., Tensor] | None) -> Iterator[None]:
    """Run dropout, attention and autocast's fp32 functions as CUDA does, and wait for no GPU.

    Args:
        attention: stands in for `scaled_dot_product_attention`; None leaves it.
    """
    functional = torch.nn.functional
    with ExitStack() as stack:
        stack.enter_context(replaced(functional, "dropout", _dropout))
        stack.enter_context(_dropout_inside_torch())
        stack.enter_context(replaced(torch, "is_autocast_enabled", _is_autocast_enabled(torch.is_autocast_enabled)))
        stack.enter_context(four_bit_products())
        if attention is not None:
            stack.enter_context(replaced(functional, "scaled_dot_product_attention", attention))
        for owner, names in _IN_FP32:
            for name in names:
                stack.enter_context(replaced(owner, name, _in_fp32(getattr(owner, name))))
        yield


@contextmanager
def four_bit_products() -> Iterator[None]:
    """Let bitsandbytes' products with four-bit weights show what they hold meanwhile.

    A version without that operator writes them in Python, and shows it by itself.
    """
    if "bitsandbytes" not in sys.modules or not hasattr(torch.ops.bitsandbytes, "gemm_4bit"):
        yield
        return
    with replaced(torch.ops.bitsandbytes.gemm_4bit, "default", gemm_4bit):
        yield


@contextmanager
def autocast_for_cuda() -> Iterator[None]:
    """Let `torch.autocast("cuda")` work on CPU tensors, where it is silently off."""
    kind = torch.amp.autocast_mode.autocast
    original = kind.__init__

    def start(self: Any, device_type: str, dtype: torch.dtype | None = None, **words: Any) -> None:  # noqa: ANN401
        if device_type == "cuda":
            device_type, dtype = "cpu", dtype or torch.get_autocast_dtype("cuda")
        original(self, device_type, dtype, **words)

    with replaced(kind, "__init__", start):
        yield


@contextmanager
def as_if_real() -> Iterator[None]:
    """Where libraries ask whether tensors are real, or need a number from one, go the way that a real run goes."""
    with ExitStack() as stack:
        masks = sys.modules.get("transformers.masking_utils")
        if masks is not None:
            stack.enter_context(replaced(masks, "is_tracing", lambda *args, **kwargs: False))
        stack.enter_context(real_norms())
        yield


@contextmanager
def real_norms() -> Iterator[None]:
    """Bitsandbytes' 32-bit update looks at a norm on the way: take what it allocates, and no value."""
    with ExitStack() as stack:
        library = sys.modules.get("bitsandbytes.functional")
        if library is not None:
            stack.enter_context(replaced(library, "optimizer_update_32bit", _only_norm))
        yield


@contextmanager
def unread_masks() -> Iterator[None]:
    """Let transformers make masks without reading values.

    Sequences count as one each, not packed, and a padding mask that is handed over as one that pads something.
    """
    masks = sys.modules.get("transformers.masking_utils")
    if masks is None:
        yield
        return
    with replaced(masks, "find_packed_sequence_indices", lambda *args, **words: None):
        yield


@contextmanager
def convertible() -> Iterator[None]:
    """Let `module.to(dtype)`, `half()` and their like work on fake tensors; torch refuses to swap those.

    Each parameter becomes a new one, so convert before an optimizer is built.
    """

    def apply(self: Any, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:  # noqa: ANN401
        made: dict[int, Tensor] = {}
        for module in self.modules() if recurse else (self,):
            for table in (module._parameters, module._buffers):
                for name, old in table.items():
                    if old is not None:
                        if id(old) not in made:
                            made[id(old)] = _converted(old, function)
                        table[name] = made[id(old)]
        return self

    with replaced(torch.nn.Module, "_apply", apply):
        yield


def _converted(old: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    with torch.no_grad():
        new = function(old)
    if new is old:
        return old
    return torch.nn.Parameter(new, old.requires_grad) if isinstance(old, torch.nn.Parameter) else new


@contextmanager
def no_waiting() -> Iterator[None]:
    """Wait for no GPU: galore_torch synchronises after every 8-bit update, which would make a context for it."""
    with replaced(torch.cuda, "synchronize", lambda device=None: None):
        yield


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:  # noqa: ANN401
    """Another value of an attribute while entered."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`F.dropout` on CUDA is `aten.native_dropout`, which saves one byte per element; on a CPU it keeps its noise."""
    return torch.native_dropout(input, p, True)[0] if training and p else input


@contextmanager
def _dropout_inside_torch() -> Iterator[None]:
    """The same for `at::dropout`, which attention from plain matrix products calls inside torch."""
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    library.impl("dropout", lambda x, p, train: _dropout(x, p, train), "AutogradCPU")  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        library._destroy()  # type: ignore[no-untyped-call]


def _is_autocast_enabled(original: Callable[..., bool]) -> Callable[..., bool]:
    """Who names no device asks for CUDA's autocast, as peft does around four-bit layers."""
    return lambda *device: original(*device or ("cpu",))


def _in_fp32(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(*args: Any, **words: Any) -> Tensor:  # noqa: ANN401
        if torch.is_autocast_enabled("cpu") and words.get("dtype") is None:
            args = tuple(map(_raised, args))
            words = {key: _raised(value) for key, value in words.items()}
        return function(*args, **words)

    return run


def _raised(value: Any) -> Any:  # noqa: ANN401
    is_half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if is_half else value


def _only_norm(name: str, g: Tensor, p: Tensor, *args: Any, max_unorm: float = 0.0, **kwargs: Any) -> None:  # noqa: ANN401
    """What bitsandbytes' 32-bit update allocates: the parameter's norm, which its kernel takes as a number."""
    if max_unorm > 0.0:
        torch.norm(p.data.float())
