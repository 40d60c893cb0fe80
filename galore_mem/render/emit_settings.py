"""What a script sets before anything else: the allocator's settings, and which attention kernels torch may take."""

from collections.abc import Iterator

from estimators.workload import Attention, Workload

WIDTH = 120
"""Of what is written."""
ATTENTION: dict[Attention, str] = {
    "auto": "sdpa",
    "flash": "sdpa",
    "efficient": "sdpa",
    "cudnn": "sdpa",
    "math": "sdpa",
    "eager": "eager",
}
"""transformers' `attn_implementation`."""
_SWITCHES = {"flash": "enable_flash_sdp", "efficient": "enable_mem_efficient_sdp", "cudnn": "enable_cudnn_sdp"}
"""Of `torch.backends.cuda`; `math` stays on, as what torch falls back to."""


def allocator(workload: Workload) -> Iterator[str]:
    """Comes before torch is imported, which reads it once."""
    if workload.allocator_settings:
        yield "import os"
        yield ""
        yield "# Before torch is imported:"
        yield f'os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "{workload.allocator_settings}")'
        yield ""


def attention(workload: Workload) -> Iterator[str]:
    """Switches that leave torch the kernel that is planned; needs torch."""
    if workload.attention not in ("auto", "eager"):
        yield f"# Attention by the kernel that is planned: {workload.attention}."
        for kernel, switch in _SWITCHES.items():
            if kernel != workload.attention:
                yield f"torch.backends.cuda.{switch}(False)"
