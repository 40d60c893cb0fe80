"""GPUs: what torch can use of each card, and what the CUDA context takes, with sources."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU model. Sizes are bytes."""

    name: str
    aliases: tuple[str, ...] = ()
    vendor: str = "nvidia"
    architecture: str
    compute_capability: str
    """`8.9` for Ada; AMD rows carry the gfx name."""
    total_bytes: int | None
    """What nvidia-smi prints as total."""
    usable_bytes: int
    """The smallest total memory torch was seen to report on Linux."""
    usable_source: str
    usable_derived: bool = False
    """True where no reading was found and the figure was derived from nvidia-smi's."""
    context_low_bytes: int
    """CUDA context with lazy loading: the least seen or expected for the class of card."""
    context_high_bytes: int
    context_source: str
    cublas_workspace_bytes: int
    """One cuBLAS workspace in the torch releases of `constraints.txt`; a step holds two."""
    cublas_workspace_recent_bytes: int
    """The same in torch releases from about February 2026, which raised it on Blackwell."""
    memory_bandwidth_gb_s: float | None = None
    bf16_dense_tflops: float | None = None
    note: str = ""
