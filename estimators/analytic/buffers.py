"""Buffers: what a model holds on the device beside its parameters."""

from estimators.analytic.tensors import Tensors
from profiles.shapes import ModelShape

_FP32_BYTES = 4


def buffers(shape: ModelShape) -> tuple[Tensors, ...]:
    """The rotary embedding's inverse frequencies, twice, one pair for the whole model.

    Both have `head_dim / 2` elements for every `rope_type` (modeling_llama.py, `LlamaRotaryEmbedding`), are not
    persistent, and stay fp32 when a model is built or loaded in bf16. `model.to(torch.bfloat16)` casts them as well,
    which changes nothing on the device up to `head_dim` 256: the allocator rounds both sizes up to 512 B.
    """
    nbytes = shape.head_dim // 2 * _FP32_BYTES
    return tuple(
        Tensors(name=f"model.rotary_emb.{name}", nbytes=nbytes, category="buffers", formula="2d")
        for name in ("inv_freq", "original_inv_freq")
    )
