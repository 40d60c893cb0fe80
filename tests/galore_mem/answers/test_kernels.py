"""Which attention kernels a search looks at: none that it leaves out takes less than `auto`'s."""

from dataclasses import replace
from typing import get_args

import pytest

from estimators.analytic.estimate import reach
from estimators.workload import Attention, Batch, Method, Workload
from galore_mem.answers.kernels import WORTH, kernels_worth_a_look
from profiles.errors import InputError
from profiles.gpus import find_gpu
from profiles.models import find_model

MODELS: tuple[str, ...] = (
    "llama-1b",
    "qwen2.5-0.5b",
    "gemma-2-2b",
    "gemma-3-1b",
    "phi-3-mini",
    "gpt2",
    "pythia-1b",
    "opt-125m",
    "phi-2",
)
MODELS += ("bloom-560m", "falcon-7b", "mixtral-8x7b", "gpt-oss-20b", "bert-base", "t5-base", "olmo-2-7b")


def run(name: str, **words: object) -> Workload:
    batch = Batch(micro_batch_size=2, sequence_length=1024 if name != "bert-base" else 512)
    return Workload(model=find_model(name).shape, method=Method(name="sgd"), batch=batch, **words)  # type: ignore[arg-type]


@pytest.mark.parametrize("card", ["4090", "h100", "v100-32gb"])
@pytest.mark.parametrize("words", [{}, {"padding": True}, {"precision": "fp32"}], ids=str)
def test_no_other_kernel_takes_less(card: str, words: dict[str, object]) -> None:
    gpu = find_gpu(card)
    for name in MODELS:
        workload = run(name, **words)
        try:
            offered = kernels_worth_a_look(workload, gpu)
        except InputError:
            continue
        assert offered[0] == "auto"
        least = min(reach(replace(workload, attention=kernel), gpu).live_bytes for kernel in offered)
        for kernel in set(get_args(Attention)) - set(offered):
            try:
                other = reach(replace(workload, attention=kernel), gpu).live_bytes
            except InputError:
                continue
            assert other > least * (1 - WORTH), (name, kernel)


@pytest.mark.parametrize(
    ("name", "card", "words", "offered"),
    [
        ("llama-1b", "4090", {}, ("auto",)),
        ("pythia-1b", "4090", {}, ("auto", "efficient")),
        ("phi-3-mini", "h100", {}, ("auto", "efficient")),
        ("phi-2", "4090", {}, ("auto", "efficient")),
        ("llama-3-8b", "4090", {}, ("auto",)),
        ("llama-3-8b", "4090", {"precision": "fp32"}, ("auto", "eager")),
        ("t5-base", "4090", {}, ("auto",)),
    ],
    ids=str,
)
def test_what_is_offered(name: str, card: str, words: dict[str, object], offered: tuple[str, ...]) -> None:
    assert kernels_worth_a_look(run(name, **words), find_gpu(card)) == offered
