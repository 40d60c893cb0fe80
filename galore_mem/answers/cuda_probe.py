"""torch and the driver, asked what a GPU takes for itself."""

import gc
from typing import Any

from galore_mem.errors import MissingExtraError, NoDeviceError
from galore_mem.profiler.nvml import ProcessMemory

WIDTH, TOKENS, HEADS, VOCABULARY = 256, 128, 4, 1024


class CudaProbe:
    """The first GPU that torch sees.

    Raises:
        NoDeviceError: there is none, or torch was built without CUDA.
        MissingExtraError: torch is not installed.
    """

    device = "cuda"

    def __init__(self) -> None:
        from galore_mem.answers.local_gpu import NAME_A_CARD, local_gpus

        try:
            local = local_gpus()[0]
        except NoDeviceError as error:
            fix = error.fix.replace(
                NAME_A_CARD, "run it where there is one; plan and trace go by the catalogue's ranges until then"
            )
            raise NoDeviceError(error.what, error.why, fix) from None
        self._process = ProcessMemory()  # before CUDA is used: what the card holds now is not ours
        self._process.choose(local.uuid)
        try:
            import torch
        except ModuleNotFoundError:
            raise MissingExtraError("calibrate", "train", "torch") from None
        if not torch.cuda.is_available():
            built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
            why = f"torch {torch.__version__} was built {built}"
            raise NoDeviceError("torch cannot use this machine's GPU", why, "see python -m torch.utils.collect_env")
        self._torch: Any = torch
        self.device_name = local.device_name
        self.driver = self._process.driver()
        self.torch = torch.__version__.partition("+")[0]

    def start(self) -> None:
        """Create the context."""
        self._torch.zeros(1, device=self.device)
        self._settle()

    def total_bytes(self) -> int:
        """Of memory, as torch reports it."""
        return int(self._torch.cuda.get_device_properties(0).total_memory)

    def process_bytes(self) -> tuple[int, str]:
        """What this process holds, as the driver says of it or, failing that, as what the whole card gained."""
        self._settle()
        held = self._process.read()
        return held or 0, "process" if self._process.source == "process" else "card"

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
