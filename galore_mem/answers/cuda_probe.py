"""torch and the driver, asked what a GPU takes for itself."""

import gc
import os
from typing import Any

from galore_mem.errors import MissingExtraError, NoDeviceError

WIDTH, TOKENS, HEADS, VOCABULARY = 256, 128, 4, 1024


class CudaProbe:
    """The first GPU that torch sees.

    Raises:
        NoDeviceError: there is none, or torch was built without CUDA.
        MissingExtraError: torch is not installed.
    """

    device = "cuda"

    def __init__(self) -> None:
        from galore_mem.answers.local_gpu import local_gpus

        local = local_gpus()[0]
        self._nvml = _Nvml(local.index)
        self._before = self._nvml.used_bytes()
        self._pids_before = frozenset(self._nvml.processes())
        try:
            import torch
        except ModuleNotFoundError:
            raise MissingExtraError("calibrate", "train", "torch") from None
        if not torch.cuda.is_available():
            built = torch.version.cuda
            why = (
                f"torch {torch.__version__} was built without CUDA"
                if built is None
                else f"it was built for CUDA {built}"
            )
            raise NoDeviceError("torch cannot use this machine's GPU", why, "see python -m torch.utils.collect_env")
        self._torch: Any = torch
        self.device_name = local.device_name
        self.driver = self._nvml.driver()
        self.torch = torch.__version__.partition("+")[0]

    def start(self) -> None:
        """Create the context."""
        self._torch.zeros(1, device=self.device)
        self._settle()

    def total_bytes(self) -> int:
        """Of memory, as torch reports it."""
        return int(self._torch.cuda.get_device_properties(0).total_memory)

    def process_bytes(self) -> tuple[int, str]:
        """What this process holds: as the driver says of it, of the one process that is new, or of the whole card."""
        self._settle()
        processes = self._nvml.processes()
        own = processes.get(os.getpid())
        fresh = [held for pid, held in processes.items() if pid not in self._pids_before]
        if own is None and len(fresh) == 1:  # in a container the driver counts processes by other numbers
            own = fresh[0]
        if own:
            return own, "process"
        return self._nvml.used_bytes() - self._before, "card"

    def reserved_bytes(self) -> int:
        """What torch's allocator holds."""
        return int(self._torch.cuda.memory_reserved())

    def workspace_bytes(self) -> tuple[int, int]:
        """Allocated bytes that stay after this thread's first matrix product, and after autograd's."""
        torch = self._torch
        start = torch.cuda.memory_allocated()
        a = torch.ones(WIDTH, WIDTH, device=self.device, dtype=torch.bfloat16, requires_grad=True)
        kept = torch.cuda.memory_allocated() - start
        product = a @ a
        own = torch.cuda.memory_allocated() - start - kept - _held(product)
        total = product.sum()
        total.backward()
        held = kept + _held(product) + _held(total) + _held(a.grad)
        autograd = torch.cuda.memory_allocated() - start - held - own
        del a, product, total
        self._settle()
        return int(own), int(autograd)

    def train(self) -> None:
        """Embedding, attention, gated MLP, loss, and AdamW over them, in bf16."""
        self._step(self._torch.bfloat16)

    def run_everything(self) -> None:
        """Every attention kernel, fp32, and what refreshes of projectors call."""
        from contextlib import suppress
        from warnings import catch_warnings, simplefilter

        from torch.nn.attention import SDPBackend, sdpa_kernel

        torch = self._torch
        for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION):
            with suppress(RuntimeError), catch_warnings(), sdpa_kernel([backend]):  # not every card has every kernel
                simplefilter("ignore")
                self._step(torch.bfloat16)
        with sdpa_kernel([SDPBackend.MATH]):
            self._step(torch.float32)
        matrix = torch.randn(512, 384, device=self.device)
        torch.linalg.qr(matrix)
        torch.linalg.eigh(matrix.T @ matrix)
        torch.linalg.svd(matrix, full_matrices=False)
        del matrix
        self._step(torch.bfloat16, _optimizer_of_eight_bits())
        self._settle()

    def svd_scratch_bytes(self, rows: int, columns: int) -> int:
        """What one decomposition takes beside its input and its factors.

        Raises:
            MemoryError: the GPU has no room for it.
        """
        torch = self._torch
        try:
            matrix = torch.randn(rows, columns, device=self.device)
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            start = torch.cuda.memory_allocated()
            factors = torch.linalg.svd(matrix, full_matrices=False)
            torch.cuda.synchronize()
            scratch = torch.cuda.max_memory_allocated() - start - sum(map(_held, factors))
        except torch.OutOfMemoryError:
            raise MemoryError from None
        finally:
            matrix = factors = None
            self._settle()
        return max(0, int(scratch))

    def _step(self, dtype: Any, kind: Any = None) -> None:  # noqa: ANN401
        torch = self._torch
        functional = torch.nn.functional
        embedding = torch.randn(VOCABULARY, WIDTH, device=self.device, dtype=dtype, requires_grad=True)
        weights = [torch.randn(WIDTH, WIDTH, device=self.device, dtype=dtype, requires_grad=True) for _ in range(7)]
        optimizer = (kind or torch.optim.AdamW)([embedding, *weights], lr=1e-4)
        ids = torch.randint(0, VOCABULARY, (1, TOKENS), device=self.device)
        for _ in range(2):
            x = functional.embedding(ids, embedding)
            x = x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6).to(dtype)
            q, k, v = ((x @ w).view(1, TOKENS, HEADS, -1).transpose(1, 2) for w in weights[:3])
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + mixed.transpose(1, 2).reshape(1, TOKENS, WIDTH) @ weights[3]
            x = x + (functional.silu(x @ weights[4]) * (x @ weights[5])) @ weights[6]
            logits = (x @ embedding.T).float()
            functional.cross_entropy(logits.view(-1, VOCABULARY), ids.view(-1)).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _settle(self) -> None:
        self._torch.cuda.synchronize()
        gc.collect()
        self._torch.cuda.empty_cache()


def _held(tensor: Any) -> int:  # noqa: ANN401
    """Bytes of the block behind a tensor: a multiple of 512, as the allocator rounds."""
    return -(-int(tensor.untyped_storage().nbytes()) // 512) * 512


def _optimizer_of_eight_bits() -> Any:  # noqa: ANN401
    """Bitsandbytes' AdamW, whose kernels are a library of their own; None where it is not installed."""
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        return None
    return AdamW8bit


class _Nvml:
    """The driver's own figures of one card."""

    def __init__(self, index: int) -> None:
        import pynvml

        self._binding: Any = pynvml
        pynvml.nvmlInit()
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(index)

    def driver(self) -> str:
        """The driver's version."""
        version = self._binding.nvmlSystemGetDriverVersion()
        return version.decode() if isinstance(version, bytes) else str(version)

    def used_bytes(self) -> int:
        """Of the whole card, by everybody."""
        return int(self._binding.nvmlDeviceGetMemoryInfo(self._handle).used)

    def processes(self) -> dict[int, int]:
        """Bytes by process, of those whose bytes the driver tells."""
        try:
            running = self._binding.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except self._binding.NVMLError:
            return {}
        return {entry.pid: int(entry.usedGpuMemory) for entry in running if entry.usedGpuMemory}
