"""LLaMA-7B as GaLore's own scripts train it, traced: their LLaMA differs from today's in three places that hold memory.

    python benchmarks/galore_scripts.py

jiaweizzhao/GaLore (peft_pretraining/modeling_llama.py, torchrun_main.py): RMSNorm multiplies its half-precision input
by an fp32 factor instead of casting it first, the loss shifts and takes the logits in half precision instead of casting
them to fp32, and checkpointing is reentrant, as it was by default in 2024. All else is the traced step of
`galore-mem trace llama-7b --method galore-adamw-8bit --update per-layer --implementation galore-torch --rank 1024`.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaForCausalLM, LlamaRMSNorm

from galore_mem.answers.trace import trace

GB = 10**9
RUNS = {"batch 1": {"batch": 1}, "batch 16, checkpointing": {"batch": 16, "checkpointing": "full"}}


def norm(self: Any, hidden: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    """RMSNorm whose product is fp32 because one factor is."""
    variance = hidden.to(torch.float32).pow(2).mean(-1, keepdim=True)
    hidden = hidden * torch.rsqrt(variance + self.variance_epsilon)
    weight: torch.Tensor = self.weight
    return weight * hidden.to(weight.dtype)


def loss_of(logits: torch.Tensor, labels: torch.Tensor, vocab_size: int, **_: object) -> torch.Tensor:
    """Cross-entropy of logits as they are."""
    shifted, targets = logits[..., :-1, :].contiguous(), labels[..., 1:].contiguous()
    return torch.nn.functional.cross_entropy(shifted.view(-1, vocab_size), targets.view(-1))


@contextmanager
def their_llama() -> Iterator[None]:
    """While entered, transformers' LLaMA differs from itself as theirs does."""
    enable = PreTrainedModel.activation_checkpointing_enable
    loss = property(
        lambda model: model.__dict__.get("own_loss", loss_of),
        lambda model, function: model.__dict__.__setitem__("own_loss", function),
    )

    def reentrant(model: Any) -> None:  # noqa: ANN401
        enable(model, {"use_reentrant": True})

    with (
        patch.object(LlamaRMSNorm, "forward", norm),
        patch.object(LlamaForCausalLM, "loss_function", loss),
        patch.object(PreTrainedModel, "activation_checkpointing_enable", reentrant),
    ):
        yield


def show(title: str) -> None:
    """Print one line for each of the two scripts."""
    for run, words in RUNS.items():
        footprint = trace(
            "llama-7b",
            gpus="4090",
            method="galore-adamw-8bit",
            update="per-layer",
            implementation="galore-torch",
            rank=1024,
            **words,
        ).footprint
        peaks = (
            footprint.peak_live_bytes,
            footprint.peak_allocated_bytes,
            footprint.peak_reserved_bytes,
            footprint.process_bytes,
            footprint.upper_bytes,
        )
        print(f"{title:<20}{run:<25}" + "".join(f"{nbytes / GB:>11.2f}" for nbytes in peaks), flush=True)


def main() -> None:
    print(f"{'10^9 bytes':<45}{'live':>11}{'allocated':>11}{'reserved':>11}{'process':>11}{'at most':>11}")
    show("today's LLaMA")
    with their_llama():
        show("the scripts' LLaMA")


if __name__ == "__main__":
    main()
