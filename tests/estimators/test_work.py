"""Work per token against operations that torch's own counter sees in real steps."""

from dataclasses import replace

import pytest

from estimators.work import relative_work, work_per_token
from estimators.workload import Batch, Method, Workload
from profiles.models import find_model
from profiles.shapes import ModelShape

TINY = ModelShape(
    name="tiny",
    model_type="llama",
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    vocab_size=192,
    max_position_embeddings=128,
)
GALORE = Method(name="galore-adamw", rank=16)


def counted(workload: Workload) -> int:
    """Operations of forward and backward of one micro-batch, per token, by torch.utils.flop_counter."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from galore_mem.training.session import Session

    session = Session(workload, "eager", None)
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        ids = torch.randint(0, 192, (workload.batch.micro_batch_size, workload.batch.sequence_length))
        session.model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return int(counter.get_total_flops()) // workload.batch.tokens


@pytest.mark.parametrize("checkpointing", ["none", "full"])
@pytest.mark.parametrize("method", [Method(), Method(name="lora", rank=8), Method(name="low-rank", rank=16)])
def test_forward_and_backward_are_what_torch_counts(method: Method, checkpointing: str) -> None:
    workload = Workload(
        model=TINY,
        method=method,
        precision="fp32",
        batch=Batch(micro_batch_size=2, sequence_length=32),
        checkpointing="full" if checkpointing == "full" else "none",
    )
    work = work_per_token(workload)
    ours = work.forward + work.backward + work.recomputed
    # LoRA: nothing below the first adapters needs a gradient, so three products of the first layer are left out.
    assert ours == pytest.approx(counted(workload), rel=0.04 if method.name == "lora" else 1e-6)


def test_plain_training_is_the_unit() -> None:
    workload = Workload(model=find_model("llama-7b").shape)
    assert relative_work(workload) == 1.0
    # The layers' forward again, without its last product and the head: 1/3 of 76 %.
    assert 1.25 < relative_work(replace(workload, checkpointing="full")) < 1.26


def test_projections_are_shared_out_among_the_tokens_of_a_step() -> None:
    """4 m n R per matrix and step: at 7B, rank 1024 and 256 tokens, more than forward and backward together."""
    model = find_model("llama-7b").shape
    small = work_per_token(Workload(model=model, method=replace(GALORE, rank=1024)))
    assert small.projected == pytest.approx(4 * 1024 * 32 * (4 * 4096**2 + 3 * 4096 * 11008) / 256)
    large = work_per_token(
        Workload(model=model, method=replace(GALORE, rank=1024), batch=Batch(micro_batch_size=8, sequence_length=256))
    )
    assert large.optimizer == pytest.approx(small.optimizer / 8)
    gathered = Batch(micro_batch_size=1, sequence_length=256, gradient_accumulation_steps=8)
    whole = work_per_token(Workload(model=model, method=replace(GALORE, rank=1024), batch=gathered))
    assert whole.optimizer == pytest.approx(small.optimizer / 8)
    by_layers = work_per_token(
        Workload(model=model, method=replace(GALORE, rank=1024, update="per-layer"), batch=gathered)
    )
    assert by_layers.projected == pytest.approx(small.projected * 9 / 16)


def test_two_sided_projection_adds_the_second_product() -> None:
    one = work_per_token(Workload(model=TINY, method=GALORE)).projected
    two = work_per_token(Workload(model=TINY, method=replace(GALORE, proj_type="full"))).projected
    assert one < two < 2 * one


def test_a_whole_svd_costs_more_than_a_subspace_iteration() -> None:
    ours = work_per_token(Workload(model=TINY, method=GALORE)).refreshed
    theirs = work_per_token(Workload(model=TINY, method=replace(GALORE, implementation="galore-torch"))).refreshed
    assert theirs > ours > 0
