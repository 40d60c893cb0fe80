"""Counts what one matrix costs, ours beside galore_torch's, and prints the table of docs/galore.md.

Run from the repository's root: `python -m benchmarks.galore_memory`. Steps run on fake tensors, so a LLaMA-7B matrix
needs neither memory nor time; storages are counted as operators make them (what cuSOLVER and LAPACK hold inside an
operator is not among them). The figures of our own are those of `estimators.analytic.galore_scratch`, which tests hold
to counts of real steps.
"""

import warnings
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from galore_mem.optim import GaLoreAdamW
from tests.galore_mem.optim.conftest import LiveBytes

MATRICES = {
    "LLaMA-350M up_proj": (2736, 1024, 256),
    "LLaMA-1B up_proj": (5461, 2048, 512),
    "LLaMA-7B q_proj": (4096, 4096, 1024),
    "LLaMA-7B up_proj": (11008, 4096, 1024),
}
MIB = 2**20


def counted(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> tuple[int, int]:
    """Bytes resident after a step, and the peak above what was live before it."""
    with LiveBytes(scalars=False) as counter:
        counter.know(*_tensors(optimizer.state[parameter]))
        optimizer.step()
    storages = {tensor.untyped_storage()._cdata: tensor for tensor in _tensors(optimizer.state[parameter])}
    resident = sum(tensor.untyped_storage().nbytes() for tensor in storages.values() if tensor.dim())
    return resident, counter.peak_bytes


def _tensors(state: dict[str, object]) -> list[torch.Tensor]:
    """Tensors of a state, those inside the reference's projector object included."""
    projector = getattr(state.get("projector"), "ortho_matrix", None)
    return [value for value in (*state.values(), projector) if isinstance(value, torch.Tensor)]


def row(name: str, shape: tuple[int, int], rank: int, dtype: torch.dtype) -> str:
    """States, refresh and plain step of both, in MiB."""
    from galore_torch import GaLoreAdamW as Reference

    cells = []
    with FakeTensorMode():
        for cls in (Reference, GaLoreAdamW):
            parameter = torch.nn.Parameter(torch.empty(shape, dtype=dtype))
            parameter.grad = torch.empty(shape, dtype=dtype)
            group = {"params": [parameter], "rank": rank, "update_proj_gap": 2, "scale": 0.25, "proj_type": "std"}
            options: dict[str, Any] = {"no_deprecation_warning": True} if cls is Reference else {"foreach": True}
            optimizer: torch.optim.Optimizer = cls([group], **options)
            optimizer.step()
            resident, step = counted(optimizer, parameter)
            _, refresh = counted(optimizer, parameter)
            cells.append((resident, refresh, step))
    pairs = " | ".join(f"{theirs / MIB:.1f} | {mine / MIB:.1f}" for theirs, mine in zip(*cells, strict=True))
    return f"| {name}, {shape[0]} x {shape[1]}, R = {rank}, {str(dtype).removeprefix('torch.')} | {pairs} |"


def table() -> str:
    """The table in Markdown."""
    lines = [
        "| matrix | states: galore_torch | ours | refresh and step: galore_torch | ours "
        "| plain step: galore_torch | ours |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, (rows, columns, rank) in MATRICES.items():
        lines += [row(name, (rows, columns), rank, dtype) for dtype in (torch.bfloat16, torch.float32)]
    return "\n".join(lines)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(table())
