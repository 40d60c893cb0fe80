"""Times refreshes and plain steps against galore_torch's, on gradients of LLaMA layers at their real widths.

Run from the repository's root: `python -m benchmarks.galore_speed 350m 1b 7b`. Each model is one layer of the real
width, over bytes of Python's own sources; its gradients come from two consecutive batches, so that warm starts are what
they are in training. Rows go to `docs/galore/speed.json` one by one, those that are there are not measured again (the
reference's SVD of a LLaMA-7B matrix takes minutes), and `python -m benchmarks.galore_figures` makes the tables.

Ratios are of medians taken in turns. On a CPU one thread's own seconds are counted, which other programs hardly touch.
"""

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.galore_quality import Setting, batches, small_llama, standard_library_bytes
from galore_mem.optim import GaLoreAdamW
from galore_mem.optim.projection import land_, project
from galore_mem.optim.refresh import Request, frobenius_norm, new_bases

MODELS = {
    "350m": Setting(hidden_size=1024, intermediate_size=2736, heads=16, rank=256),
    "1b": Setting(hidden_size=2048, intermediate_size=5461, heads=32, rank=512),
    "7b": Setting(hidden_size=4096, intermediate_size=11008, heads=32, rank=1024),
}
MATRICES = ("self_attn.q_proj", "mlp.up_proj", "mlp.down_proj")
FLAT = (1.0, 0.5, 0.0)
"""Spectra i**-exponent, harder than a gradient's; the last one is white noise."""
Work = Callable[[], Any]


def gradients(setting: Setting, device: str) -> dict[str, tuple[Tensor, Tensor]]:
    """By matrix, its gradients on two batches, one step of descent between them."""
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
    return {name: (first, second) for name, (first, second) in found.items()}


def with_spectrum(size: int, exponent: float, device: str) -> tuple[Tensor, Tensor]:
    """Two square matrices with this spectrum, the second half old and half new."""
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.arange(1, size + 1).float() ** -exponent

    def one() -> Tensor:
        return torch.randn(size, size, generator=generator) * spectrum @ torch.randn(size, size, generator=generator)

    if exponent == 0.0:
        return torch.randn(size, size).to(device), torch.randn(size, size).to(device)
    first, other = one(), one()
    return first.to(device), (first + other).to(device)


def seconds(work: Work, device: str) -> float:
    """Wall-clock on a GPU, else CPU seconds of this process."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    begin = clock()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - begin


def in_turns(works: list[Work], repeats: int, device: str) -> list[float]:
    """Median seconds of each, one after the other, again and again."""
    turns = [[seconds(work, device) for work in works] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*turns, strict=True)]


def refresh_row(first: Tensor, second: Tensor, rank: int, repeats: int, device: str) -> dict[str, Any]:
    """The reference's decomposition of the second gradient beside our warm and cold refresh of it."""
    from galore_torch.galore_projector import GaLoreProjector

    side = "right" if second.shape[0] >= second.shape[1] else "left"
    reference = GaLoreProjector(rank)
    bases: list[Any] = []

    def refresh(gradient: Tensor, before: Any) -> Any:  # noqa: ANN401
        request = Request(rank=rank, proj_type="std", kind="subspace", seed=0, norm=frobenius_norm(gradient))
        return new_bases(gradient, request, before)

    before = refresh(first, None)
    works: list[Work] = [
        lambda: bases.append(reference.get_orthogonal_matrix(second, rank, side)),
        lambda: refresh(second, before),
        lambda: refresh(second, None),
    ]
    exact_seconds, warm_seconds, cold_seconds = in_turns(works, repeats, device)
    exact = project(second, {side: bases[-1]}).square().sum()  # type: ignore[dict-item]
    warm, cold = (project(second, refresh(second, start)).square().sum() for start in (before, None))
    return {
        "shape": list(second.shape),
        "rank": rank,
        "repeats": repeats,
        "galore_torch_seconds": round(exact_seconds, 5),
        "warm_seconds": round(warm_seconds, 5),
        "cold_seconds": round(cold_seconds, 5),
        "warm_energy": round(float(warm / exact), 5),
        "cold_energy": round(float(cold / exact), 5),
    }


def adamw_step(
    weight: Tensor, gradient: Tensor, basis: Tensor, moments: tuple[Tensor, Tensor], step: Tensor, is_right: bool
) -> None:
    """The whole plain step as one function of tensors: all that a compiler could see of it."""
    side = "right" if is_right else "left"
    low, (first, second) = project(gradient, {side: basis}), moments  # type: ignore[dict-item]
    step.add_(1)
    first.lerp_(low, 0.1)
    second.mul_(0.999).addcmul_(low, low, value=0.001)
    size = 1e-3 / (1 - 0.9**step)
    update = first / ((second / (1 - 0.999**step)).sqrt_().add_(1e-8)) * -size
    land_(weight, update.to(weight.dtype), {side: basis}, 0.25, 1.0)  # type: ignore[dict-item]


def step_row(gradient: Tensor, rank: int, dtype: torch.dtype, repeats: int, device: str) -> dict[str, Any]:
    """A plain step of ours, without a refresh, beside the reference's, and beside itself compiled, taken in turns."""
    from galore_torch import GaLoreAdamW as Reference

    def prepared(cls: Callable[..., torch.optim.Optimizer], **options: Any) -> torch.optim.Optimizer:  # noqa: ANN401
        parameter = torch.nn.Parameter(torch.zeros_like(gradient, dtype=dtype))
        parameter.grad = gradient.to(dtype)
        group = {"params": [parameter], "rank": rank, "update_proj_gap": 10**9, "scale": 0.25, "proj_type": "std"}
        optimizer = cls([group], **options)
        optimizer.step()
        return optimizer

    ours = prepared(GaLoreAdamW, weight_decay=0.0)
    theirs = prepared(Reference, weight_decay=0.0, no_deprecation_warning=True)
    ((weight, state),) = ours.state.items()
    assert weight.grad is not None
    copies = [
        tensor.detach().clone() for tensor in (weight, weight.grad, *(state[key] for key in ("exp_avg", "exp_avg_sq")))
    ]
    is_right = "projector_right" in state
    basis = state["projector_right" if is_right else "projector_left"].clone()
    step = torch.ones((), device=device)
    torch.compiler.reset()  # a function that was compiled for eight shapes is not compiled for a ninth
    compiled = torch.compile(adamw_step, dynamic=False)

    def run_compiled() -> None:
        compiled(copies[0], copies[1], basis, (copies[2], copies[3]), step, is_right)

    for work in (ours.step, theirs.step, run_compiled):
        work()
    other, mine, fused = in_turns([theirs.step, ours.step, run_compiled], repeats, device)
    return {
        "shape": list(gradient.shape),
        "rank": rank,
        "dtype": str(dtype).removeprefix("torch."),
        "repeats": repeats,
        "galore_torch_seconds": round(other, 6),
        "seconds": round(mine, 6),
        "compiled_seconds": round(fused, 6),
    }


def processor(device: str) -> str:
    """Name of what is measured."""
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def measurements(model: str, device: str) -> Iterator[tuple[str, str, str, Callable[[], dict[str, Any]]]]:
    """Table, name and dtype of every row of a model, and what measures it."""
    setting, repeats = MODELS[model], {"350m": 7, "1b": 3, "7b": 1}[model]
    for matrix, pair in gradients(setting, device).items():
        name = f"LLaMA-{model.upper()} {matrix.split('.')[1]}"
        yield "refreshes", name, "", partial(refresh_row, *pair, setting.rank, repeats, device)
        for dtype in (torch.float32, torch.bfloat16):
            measure = partial(step_row, pair[1], setting.rank, dtype, 2 * repeats + 5, device)
            yield "steps", name, str(dtype).removeprefix("torch."), measure
    for exponent in FLAT if model == "350m" else ():
        name = f"spectrum i^-{exponent:g}" if exponent else "white noise"
        pair = with_spectrum(setting.hidden_size, exponent, device)
        yield "refreshes", name, "", partial(refresh_row, *pair, setting.rank, repeats, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", choices=MODELS)
    parser.add_argument("--into", type=Path, default=Path("docs/galore/speed.json"))
    parser.add_argument("--skip", nargs="*", default=[], choices=["refreshes", "steps"])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    record: dict[str, Any] = {
        "device": processor(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "clock": "wall-clock" if device == "cuda" else "CPU seconds, float32 gradients",
        "refreshes": [],
        "steps": [],
    }
    if arguments.into.exists():
        record = json.loads(arguments.into.read_text(encoding="utf-8"))

    for model in arguments.models:
        for table, name, dtype, measure in measurements(model, device):
            known = any(row["name"] == name and row.get("dtype", "") == dtype for row in record[table])
            if not known and table not in arguments.skip:
                record[table].append({"name": name, **measure()})
                print(record[table][-1], flush=True)
                arguments.into.parent.mkdir(parents=True, exist_ok=True)
                arguments.into.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
