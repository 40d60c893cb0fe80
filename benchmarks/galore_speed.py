"""Times refreshes and plain steps against galore_torch's, on gradients of LLaMA layers at their real widths.

Run from the repository's root: `python -m benchmarks.galore_speed 350m 1b 7b --into docs/galore`. Each model is one
layer of the real width, over bytes of Python's own sources; its gradients come from two consecutive batches, so that
warm starts are what they are in training. The reference's SVD of an 11008 x 4096 matrix takes minutes on a small CPU.
"""

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.galore_quality import Setting, batches, small_llama, standard_library_bytes
from galore_mem.optim import GaLoreAdamW
from galore_mem.optim.projection import project
from galore_mem.optim.refresh import Request, frobenius_norm, new_bases

MODELS = {
    "350m": Setting(hidden_size=1024, intermediate_size=2736, heads=16, rank=256),
    "1b": Setting(hidden_size=2048, intermediate_size=5461, heads=32, rank=512),
    "7b": Setting(hidden_size=4096, intermediate_size=11008, heads=32, rank=1024),
}
MATRICES = ("self_attn.q_proj", "mlp.up_proj", "mlp.down_proj")


def gradients(setting: Setting, device: str) -> dict[str, list[Tensor]]:
    """By matrix, its gradients on two batches, one step of descent between them."""
    from dataclasses import replace

    setting = replace(setting, layers=1, sequence_length=128, batch_size=8)
    model = small_llama(setting).to(device)
    found: dict[str, list[Tensor]] = {name: [] for name in MATRICES}
    for batch in batches(standard_library_bytes(), setting, 2, 1):
        model.zero_grad()
        torch.autograd.backward(model(input_ids=batch.to(device), labels=batch.to(device)).loss)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None
                matched = next((key for key in MATRICES if f"{key}.weight" in name), None)
                if matched:
                    found[matched].append(parameter.grad.clone())
                parameter.add_(parameter.grad, alpha=-0.1)
    return found


def median_seconds(work: Callable[[], Any], repeats: int, device: str) -> float:
    """Median: wall-clock on a GPU, else CPU seconds of one thread, which other processes hardly touch."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    times = []
    for _ in range(repeats):
        begin = clock()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - begin)
    return statistics.median(times)


def refresh_row(first: Tensor, second: Tensor, rank: int, repeats: int, device: str) -> dict[str, Any]:
    """The reference's decomposition of the second gradient beside our warm and cold refresh of it."""
    from galore_torch.galore_projector import GaLoreProjector

    side = "right" if second.shape[0] >= second.shape[1] else "left"
    reference = GaLoreProjector(rank)
    bases: list[Any] = []
    exact_seconds = median_seconds(
        lambda: bases.append(reference.get_orthogonal_matrix(second, rank, side)), repeats, device
    )
    exact = project(second, {side: bases[-1]}).square().sum()  # type: ignore[dict-item]

    def request(gradient: Tensor) -> Request:
        norm = frobenius_norm(gradient)
        return Request(rank=rank, proj_type="std", kind="subspace", seed=0, norm=norm)

    before = new_bases(first, request(first), None)
    warm_seconds = median_seconds(lambda: new_bases(second, request(second), before), max(3, repeats), device)
    cold_seconds = median_seconds(lambda: new_bases(second, request(second), None), max(3, repeats), device)
    warm, cold = (project(second, new_bases(second, request(second), start)) for start in (before, None))
    return {
        "shape": list(second.shape),
        "rank": rank,
        "galore_torch_seconds": round(exact_seconds, 4),
        "warm_seconds": round(warm_seconds, 4),
        "cold_seconds": round(cold_seconds, 4),
        "warm_speedup": round(exact_seconds / warm_seconds, 1),
        "cold_speedup": round(exact_seconds / cold_seconds, 1),
        "warm_energy": round(float(warm.square().sum() / exact), 5),
        "cold_energy": round(float(cold.square().sum() / exact), 5),
    }


def step_row(gradient: Tensor, rank: int, dtype: torch.dtype, repeats: int, device: str) -> dict[str, Any]:
    """A plain step of ours beside the reference's, without a refresh, taken in turns."""
    from galore_torch import GaLoreAdamW as Reference

    def prepared(cls: Callable[..., torch.optim.Optimizer], **options: Any) -> torch.optim.Optimizer:  # noqa: ANN401
        parameter = torch.nn.Parameter(torch.zeros_like(gradient, dtype=dtype))
        parameter.grad = gradient.to(dtype)
        group = {"params": [parameter], "rank": rank, "update_proj_gap": 10**9, "scale": 0.25, "proj_type": "std"}
        optimizer = cls([group], **options)
        optimizer.step()
        return optimizer

    ours, theirs = prepared(GaLoreAdamW), prepared(Reference, no_deprecation_warning=True)
    turns = [
        (median_seconds(ours.step, 1, device), median_seconds(theirs.step, 1, device)) for _ in range(2 * repeats + 3)
    ]
    mine, other = (statistics.median(column) for column in zip(*turns, strict=True))
    return {
        "shape": list(gradient.shape),
        "rank": rank,
        "dtype": str(dtype).removeprefix("torch."),
        "galore_torch_seconds": round(other, 5),
        "seconds": round(mine, 5),
        "ratio": round(mine / other, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", choices=MODELS)
    parser.add_argument("--into", type=Path, default=Path("docs/galore"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--matrices", nargs="+", default=list(MATRICES), choices=MATRICES)
    parser.add_argument("--name", default="speed")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    record: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "refreshes": [],
        "steps": [],
    }
    for name in arguments.models:
        setting = MODELS[name]
        for matrix, (first, second) in gradients(setting, device).items():
            if matrix not in arguments.matrices:
                continue
            row = {"model": name, "matrix": matrix}
            for dtype in (torch.float32, torch.bfloat16):
                record["steps"].append({**row, **step_row(second, setting.rank, dtype, arguments.repeats, device)})
                print(record["steps"][-1], flush=True)
            record["refreshes"].append({**row, **refresh_row(first, second, setting.rank, arguments.repeats, device)})
            print(record["refreshes"][-1], flush=True)
            arguments.into.mkdir(parents=True, exist_ok=True)
            (arguments.into / f"{arguments.name}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
