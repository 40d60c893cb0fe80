"""What PYTORCH_CUDA_ALLOC_CONF decides about device memory.

Defaults and meaning follow `AcceleratorAllocatorConfig` (c10/core/AllocatorConfig.h) and `CUDAAllocatorConfig`
(c10/cuda/CUDAAllocatorConfig.h) of torch 2.13.
"""

from dataclasses import dataclass

MIB = 1 << 20

MIN_BLOCK_BYTES = 512
"""kMinBlockSize: every size is rounded up to a multiple of this."""
SMALL_BYTES = MIB
"""kSmallSize: the largest request served from the small pool."""
SMALL_SEGMENT_BYTES = 2 * MIB
"""kSmallBuffer: what the small pool asks the driver for."""
MIN_LARGE_ALLOC_BYTES = 10 * MIB
"""kMinLargeAlloc: from here on a segment is as large as its request."""
ROUND_LARGE_BYTES = 2 * MIB
"""kRoundLarge: such segments are rounded up to a multiple of this."""
POWER2_INTERVALS = 16
"""kRoundUpPowerOfTwoIntervals: 1 MiB, 2 MiB, ... 32 GiB and above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatorSettings:
    """The settings that change how device memory is handed out."""

    text: str = ""
    """The string they were parsed from."""
    max_split_size_bytes: int | None = None
    """Blocks of this size and above are neither split nor lent to smaller requests; None is unlimited."""
    max_non_split_rounding_bytes: int = 20 * MIB
    """How much larger than an oversize request a cached block may be."""
    roundup_power2_divisions: tuple[int, ...] = (0,) * POWER2_INTERVALS
    """Divisions of the power-of-two interval that starts at 1 MiB, 2 MiB, ...; 0 and 1 switch rounding off."""
    garbage_collection_threshold: float = 0.0
    """Share of the allowed memory above which old cached blocks are released; 0 never does."""
    large_segment_size_bytes: int = 20 * MIB
    """Segment size for requests between 1 and 10 MiB, and page size of large expandable segments."""
    expandable_segments: bool = False
    per_process_memory_fraction: float = 1.0
    """Share of the card's memory this process may reserve; 1 sets no limit."""
    backend: str = "native"
    """`native`, or `cudaMallocAsync`, which this package does not replicate."""


DEFAULTS = AllocatorSettings()
EXPANDABLE = AllocatorSettings(text="expandable_segments:True", expandable_segments=True)
