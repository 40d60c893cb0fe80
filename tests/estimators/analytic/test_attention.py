"""Which attention kernel runs where."""

from dataclasses import replace

import pytest

from estimators.analytic.attention import attention_kernel
from estimators.workload import Attention, Precision, Workload
from profiles.errors import InputError
from profiles.gpus import find_gpu
from profiles.models import find_model

LLAMA = Workload(model=find_model("llama-7b").shape)
GROUPED = replace(LLAMA, model=find_model("llama-3-8b").shape)


@pytest.mark.parametrize(
    ("workload", "gpu", "kernel"),
    [
        (LLAMA, "4090", "flash"),
        (LLAMA, "a100-80gb", "flash"),
        (LLAMA, "h100", "cudnn"),
        (LLAMA, "h200", "cudnn"),
        (LLAMA, "b200", "cudnn"),
        (LLAMA, "5090", "flash"),
        (GROUPED, "4090", "flash"),
        (replace(LLAMA, padding=True), "4090", "efficient"),
        (replace(GROUPED, padding=True), "4090", "efficient"),
        (replace(LLAMA, precision="fp32"), "4090", "efficient"),
        (replace(LLAMA, precision="fp32"), "h100", "efficient"),
        (replace(GROUPED, precision="fp32"), "4090", "math"),
        (replace(LLAMA, precision="amp-fp16"), "t4", "efficient"),
        (LLAMA, "t4", "math"),
        (replace(LLAMA, attention="eager"), "4090", "eager"),
        (replace(LLAMA, attention="math"), "4090", "math"),
    ],
)
def test_auto_chooses_as_torch_does(workload: Workload, gpu: str, kernel: str) -> None:
    assert attention_kernel(workload, find_gpu(gpu)) == kernel


@pytest.mark.parametrize(
    ("attention", "precision", "gpu", "reason"),
    [
        ("flash", "bf16", "t4", "compute capability 8.0"),
        ("flash", "fp32", "4090", "half precision"),
        ("cudnn", "fp32", "h100", "half precision"),
        ("efficient", "bf16", "t4", "no bf16"),
    ],
)
def test_a_pinned_kernel_that_cannot_run_is_refused_in_one_line(
    attention: Attention, precision: Precision, gpu: str, reason: str
) -> None:
    workload = replace(LLAMA, attention=attention, precision=precision)
    with pytest.raises(InputError, match=reason) as caught:
        attention_kernel(workload, find_gpu(gpu))
    assert "\n" not in str(caught.value)
    assert "--attention auto" in str(caught.value)


def test_without_a_card_an_ampere_one_is_meant() -> None:
    assert attention_kernel(LLAMA, None) == "flash"
    with pytest.raises(InputError, match="padding mask"):
        attention_kernel(replace(LLAMA, attention="flash", padding=True), None)
