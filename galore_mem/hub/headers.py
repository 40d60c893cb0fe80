"""The header of a safetensors file: names, dtypes and shapes of its tensors, ahead of their bytes.

Format: eight bytes with the header's length, little-endian, then that many bytes of JSON
(huggingface.co/docs/safetensors, "Format").
"""

import json
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LENGTH_BYTES = 8
FIRST_BYTES = 100_000
"""What is asked for at first: it holds the header of most files."""
MOST_HEADER_BYTES = 100 * 10**6
"""The format's own limit."""
BITS = {
    **dict.fromkeys(("F64", "I64", "U64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
_BUFFERS = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias")
"""Names that older checkpoints store although they are no parameters."""


class HeaderError(ValueError):
    """These bytes are no safetensors header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What a checkpoint stores."""

    parameters: Mapping[str, int]
    """Elements by dtype, as safetensors names it; buffers that older checkpoints store are left out."""
    tensors: int
    nbytes: int
    """Of all its tensors."""
    files: int = 1

    @property
    def total(self) -> int:
        """All elements."""
        return sum(self.parameters.values())

    @property
    def dtype(self) -> str:
        """The dtype of most of them."""
        return max(self.parameters, key=lambda name: self.parameters[name], default="")

    def plus(self, other: "Weights") -> "Weights":
        """Both together."""
        return Weights(
            parameters=dict(Counter(self.parameters) + Counter(other.parameters)),
            tensors=self.tensors + other.tensors,
            nbytes=self.nbytes + other.nbytes,
            files=self.files + other.files,
        )


def header_length(start: bytes) -> int:
    """Bytes of the JSON, by the first eight bytes of a file.

    Raises:
        HeaderError: too few bytes, or a length that no file has.
    """
    if len(start) < LENGTH_BYTES:
        raise HeaderError("it ends before its header")
    length = int(struct.unpack("<Q", start[:LENGTH_BYTES])[0])
    if not 2 <= length <= MOST_HEADER_BYTES:
        raise HeaderError(f"its header would have {length} bytes")
    return length


def weights_of(header: bytes) -> Weights:
    """Count what a header lists.

    Raises:
        HeaderError: no JSON, or no list of tensors.
    """
    try:
        content = json.loads(header)
    except (ValueError, RecursionError):
        raise HeaderError("its header is no JSON") from None
    if not isinstance(content, dict):
        raise HeaderError("its header is no list of tensors")
    counts: Counter[str] = Counter()
    bits, tensors = 0, 0
    for name, entry in content.items():
        if name == "__metadata__":
            continue
        dtype, elements = _entry(entry)
        bits += elements * BITS[dtype]
        tensors += 1
        if not name.endswith(_BUFFERS):
            counts[dtype] += elements
    return Weights(parameters=dict(counts), tensors=tensors, nbytes=-(-bits // 8))


def _entry(entry: Any) -> tuple[str, int]:  # noqa: ANN401
    try:
        dtype, shape = entry["dtype"], entry["shape"]
        elements = 1
        for size in shape:
            if isinstance(size, bool) or not isinstance(size, int) or size < 0:
                raise TypeError
            elements *= size
    except (KeyError, TypeError):
        raise HeaderError("its header lists a tensor without dtype and shape") from None
    if dtype not in BITS:
        raise HeaderError(f"its header names the dtype {str(dtype)[:20]!r}")
    return dtype, elements
