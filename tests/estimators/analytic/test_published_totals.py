"""Published peaks beside ours; nothing is fitted to them."""

from dataclasses import replace

import pytest

from estimators.analytic.estimate import estimate
from estimators.footprint import Footprint
from estimators.verdict import judge
from estimators.workload import Batch, Method, Workload
from profiles.gpus import find_gpu
from profiles.models import find_model
from profiles.published import published_figures

MIB = 2**20
TORCHAO = {figure.name.removeprefix("torchao "): figure.value for figure in published_figures("llama-1b")}
"""torchao's memory profile of LLaMA-1B: fp32, 5 x 256 tokens, rank 128, galore_torch, blocks of 2048."""


def footprint(name: str) -> Footprint:
    rank = 128 if name.startswith("galore") else None
    method = Method(name=name, rank=rank, implementation="galore-torch", quant_blocksize=2048)
    batch = Batch(micro_batch_size=5, sequence_length=256)
    model = find_model("llama-1b").shape
    return estimate(Workload(model=model, method=method, precision="fp32", batch=batch, attention="efficient"))


def test_torchao_s_adamw_peaks_in_foreach_s_temporaries() -> None:
    ours = footprint("adamw")
    assert ours.peak.name == "step"
    assert ours.peak_live_bytes / MIB == pytest.approx(TORCHAO["adamw total"], rel=0.001)


@pytest.mark.parametrize("name", ["galore-adamw", "adamw-8bit", "galore-adamw-8bit"])
def test_torchao_s_other_totals_with_their_activations(name: str) -> None:
    """The layers of 2024 kept more: 480 to 500 MiB, by the published column; the rest of each total is ours."""
    found = footprint(name)
    moment = next(m for m in found.moments if (m.iteration, m.name) == ("steady", "backward_start"))
    ours = sum(moment.by_category.get(category, 0) for category in ("activations", "logits", "inputs", "temporaries"))
    total = moment.live_bytes - ours + TORCHAO[f"{name} activations"] * MIB
    assert total / MIB == pytest.approx(TORCHAO[f"{name} total"], rel=0.005)
    assert 480 < TORCHAO[f"{name} activations"] - ours / MIB < 500


SEVEN_B = Workload(
    model=find_model("llama-7b").shape, method=Method(name="galore-adamw-8bit", rank=1024, update="per-layer")
)


def test_the_paper_s_story_on_an_rtx_4090() -> None:
    gpu = find_gpu("4090")
    whole = replace(SEVEN_B, method=replace(SEVEN_B.method, update="whole"))
    adamw = replace(SEVEN_B, method=Method(name="adamw"))
    assert judge(adamw, gpu).verdict == "does-not-fit"
    assert judge(whole, gpu).verdict == "does-not-fit"
    fit = judge(SEVEN_B, gpu)
    assert fit.verdict == "fits"
    assert fit.max_sequence_length >= 256
    ten, sixteen = (replace(SEVEN_B, batch=Batch(micro_batch_size=size), checkpointing="full") for size in (10, 16))
    assert (judge(ten, gpu).verdict, judge(sixteen, gpu).verdict) == ("fits", "tight")  # replayed, sixteen fit


def test_the_paper_s_58_gb_of_adamw_on_7b() -> None:
    """Paper, section 1: 14 GB of weights, 42 of gradients and Adam states, 2 of activations at 2048 tokens.

    Ours: 13.5 + 40.4 (the paper counts 7 B parameters for 6.74), and 12.2 of activations without checkpointing; the
    paper's 2 GB are not reached even by checkpointing every layer, which keeps 0.6 and recomputes 0.4.
    """
    workload = Workload(
        model=SEVEN_B.model,
        method=Method(name="adamw", optimizer_kernel="fused"),
        batch=Batch(sequence_length=2048),
    )
    found = estimate(workload)
    assert found.resident_bytes["weights"] / 1e9 == pytest.approx(13.48, abs=0.01)
    assert (found.resident_bytes["gradients"] + found.resident_bytes["optimizer_states"]) / 1e9 == pytest.approx(
        40.43, abs=0.01
    )
    forward = next(m for m in found.moments if m.name == "forward_end")
    assert forward.by_category["activations"] / 1e9 == pytest.approx(12.29, abs=0.05)


def test_7b_per_layer_8_bit_galore_beside_published_readings() -> None:
    """22.0 (paper) to 22.8 G off nvidia-smi with galore_torch, units and context unstated; ours with its refresh."""
    theirs = replace(SEVEN_B, method=replace(SEVEN_B.method, implementation="galore-torch"))
    found = estimate(theirs, find_gpu("4090"))
    assert found.process_bytes / 1e9 < 22.8 < found.upper_bytes / 1e9
