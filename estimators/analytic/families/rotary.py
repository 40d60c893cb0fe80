"""What rotary positions hold on the device, and symbols for heads of which they turn only a part."""

from collections.abc import Mapping

from estimators.analytic.tensors import Tensors

_FP32_BYTES = 4


def inverse_frequencies(path: str, width: int, symbol: str = "d") -> tuple[Tensors, ...]:
    """The rotary embedding's inverse frequencies, twice, one pair for the whole model.

    Both have half as many elements as a head has turned ones, for every `rope_type` (modeling_llama.py,
    `LlamaRotaryEmbedding`), are not persistent, and stay fp32 when a model is built or loaded in bf16.
    `model.to(torch.bfloat16)` casts them as well, which changes nothing on the device up to 256 turned elements: the
    allocator rounds both sizes up to 512 B.

    Args:
        path: the module that holds them.
        width: elements of a head that positions turn.
        symbol: what formulas call that number.
    """
    nbytes = width // 2 * _FP32_BYTES
    return tuple(
        Tensors(name=f"{path}.{name}", nbytes=nbytes, category="buffers", formula=f"2{symbol}")
        for name in ("inv_freq", "original_inv_freq")
    )


def turned_sizes(head_dim: int, turned: int) -> Mapping[str, int]:
    """Symbols of heads of which positions turn a part: `p` elements."""
    return {"p": turned, "p/2": turned // 2, "d-p": head_dim - turned}
