"""Buckets: torch's own assignment of tensors, what frozen parameters and dtypes do, and what cannot run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from estimators.analytic.bounds import between_steps_bytes
from estimators.analytic.composition import composition
from estimators.analytic.course import course_of
from estimators.analytic.data_parallel import (
    MIB,
    assigned,
    broadcast_bytes,
    bucket_limits,
    buckets_of,
    first_buckets,
)
from estimators.analytic.estimate import estimate
from estimators.checks import check
from estimators.workload import Workload
from galore_mem.answers.changes import alternatives
from galore_mem.answers.exact import confirmed
from galore_mem.answers.fit import fit
from galore_mem.answers.plan import plan
from galore_mem.answers.settings import Settings, workloads
from profiles.errors import InputError
from profiles.models import find_model

MODEL = find_model("llama-60m").shape


def _run(method: str = "adamw", **settings: Any) -> Workload:  # noqa: ANN401
    (workload,) = workloads(MODEL, (method,), Settings(**{"data_parallel": 2, **settings}))
    return workload


@pytest.mark.parametrize("cap", [None, 1, 25])
def test_tensors_share_buckets_as_torch_assigns_them(cap: int | None) -> None:
    torch = pytest.importorskip("torch")
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    sizes = [(n * 977 * MIB // 400, 2 if n % 3 else 4) for n in (1, 2, 9, 1, 4, 3, 7, 7, 2, 8, 5, 1, 6)]
    tensors = [
        torch.empty(nbytes // itemsize, dtype=torch.bfloat16 if itemsize == 2 else torch.float32, device="meta")
        for nbytes, itemsize in sizes
    ]
    theirs, _ = torch.distributed._compute_bucket_assignment_by_size(tensors, list(bucket_limits(cap)))
    assert sorted(assigned(sizes, bucket_limits(cap)), key=min) == theirs


def test_each_gpu_holds_one_more_copy_of_the_gradients() -> None:
    one, two, views = _run(data_parallel=1), _run(), _run(gradient_as_bucket_view=True)
    copy = sum(first_buckets(two))
    assert first_buckets(one) == ()
    ends = {}
    for run in (one, two, views):
        moments = {moment.label: moment for moment in estimate(run).moments}
        ends[run] = [moments[label].by_category.get("gradients", 0) for label in ("steady forward_end", "steady step")]
    slack = 512 * 20  # each bucket is rounded by itself
    assert ends[one] == [0, pytest.approx(copy, abs=512 * 100)]
    assert ends[two] == [pytest.approx(copy, abs=slack), pytest.approx(ends[one][1] + copy, abs=slack)]
    assert ends[views] == [pytest.approx(copy, abs=slack), pytest.approx(copy, abs=slack)]
    assert between_steps_bytes(two) > between_steps_bytes(views) > between_steps_bytes(replace(one, zero_grad="end"))


def test_frozen_weights_have_no_buckets_but_are_broadcast() -> None:
    lora = _run("lora", rank=8)
    assert sum(first_buckets(lora)) < 0.05 * sum(first_buckets(_run()))
    assert broadcast_bytes(lora) > broadcast_bytes(_run()) > 0
    assert estimate(lora).moments[0].name == "broadcast"


def test_a_moment_names_its_buckets() -> None:
    workload = _run()
    for moment in estimate(workload).moments:
        rows = [row for row in composition(workload, moment) if "DistributedDataParallel" in row.name]
        assert len(rows) == (moment.name != "broadcast")


def test_nccl_is_in_the_bound_alone() -> None:
    footprint = estimate(_run())
    (term,) = [term for term in footprint.terms if term.name == "NCCL"]
    assert (term.low_bytes, term.high_bytes) == (0, 1_600_000_000)
    assert footprint.upper_bytes == footprint.peak_live_bytes + sum(term.high_bytes for term in footprint.terms)
    assert "NCCL" in check(_run())[-1]


@pytest.mark.parametrize(
    ("method", "settings", "reason"),
    [
        ("adamw", {"update": "per-layer"}, "before its gradient is averaged"),
        ("offload-adamw", {}, "to the host"),
        ("adamw", {"master_weights": True}, "Megatron-Core"),
        ("galore-adamw-8bit", {"implementation": "galore-torch", "gradient_as_bucket_view": True}, "no views"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(method: str, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        check(_run(method, **settings))
    check(_run(method, **{**settings, "data_parallel": 1}))


def test_options_of_buckets_say_nothing_on_one_gpu() -> None:
    assert "without --data-parallel" in check(_run(data_parallel=1, bucket_cap_mb=50))[0]


def test_views_are_offered_and_per_layer_updates_are_not() -> None:
    offered = [options for options, _ in alternatives(_run(), fits=False)]
    assert "--gradient-as-bucket-view" in offered
    assert "--update per-layer" not in offered


@pytest.mark.parametrize(
    "settings",
    [{}, {"gradient_as_bucket_view": True, "grad_accumulation": 3}, {"bucket_cap_mb": 5, "zero_grad": "end"}],
)
def test_a_written_history_reserves_what_a_trace_does(settings: dict[str, Any]) -> None:
    pytest.importorskip("transformers")
    from galore_mem.answers.trace import trace

    workload = _run(**settings)
    traced = trace(workload).footprint
    assert confirmed(workload, estimate(workload), None).peak_reserved_bytes == traced.peak_reserved_bytes


@pytest.mark.parametrize(("name", "cap"), [("gpt2", 3), ("qwen2.5-0.5b", None)])
def test_buckets_fill_in_the_order_of_backward(name: str, cap: int | None) -> None:
    """Biases, tied embeddings and norms included."""
    pytest.importorskip("transformers")
    from galore_mem.answers.steps import record

    (workload,) = workloads(find_model(name).shape, ("sgd",), Settings(data_parallel=2, bucket_cap_mb=cap))
    course = course_of(workload, "flash")
    buckets = buckets_of(workload, course.layout)
    recorded = [life.nbytes for life in record(workload, "flash").lives if life.module == "DistributedDataParallel"]
    assert [*buckets.first, *buckets.rebuilt] == recorded


def test_a_search_divides_the_global_batch_among_gpus() -> None:
    found = fit("llama-60m", gpus="3060", methods=("adamw",), data_parallel=4, global_batch=64).best.recommended
    assert found is not None
    batch = found.option.workload.batch
    assert batch.micro_batch_size * batch.gradient_accumulation_steps * 4 == 64
    with pytest.raises(InputError, match="no multiple of 8"):
        fit("llama-60m", gpus="3060", data_parallel=4, global_batch=60, batch=2)
    with pytest.raises(InputError, match="per-layer"):
        fit("llama-60m", gpus="3060", data_parallel=4, update="per-layer")


def test_a_file_speaks_of_each_gpu(tmp_path: Path) -> None:
    """Its batch is one GPU's; how many there are is said beside it."""
    path = tmp_path / "run.json"
    content = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_length": 64,
        "output_dir": "out",
    }
    path.write_text(json.dumps({**content, "dtype": "bfloat16", "ddp_bucket_cap_mb": 50}))
    result = plan("llama-60m", from_file=str(path), data_parallel=2)
    assert (result.plans[0].workload.bucket_cap_mb, result.plans[0].workload.data_parallel) == (50, 2)
    found = fit("llama-60m", gpus="3060", from_file=str(path), data_parallel=2, methods=("adamw",))
    assert found.wishes.global_batch == 4 * 2 * 2


@pytest.mark.parametrize("name", ["bert-base", "qwen2.5-0.5b"])
def test_copies_of_each_dtype_are_broadcast_apart(name: str) -> None:
    """Half-precision weights and biases, fp32 adapters, and int64 ids."""
    pytest.importorskip("peft")
    from galore_mem.answers.trace import trace

    (workload,) = workloads(find_model(name).shape, ("lora",), Settings(rank=8, data_parallel=2))
    moments = [answer.moments[0] for answer in (estimate(workload), trace(workload).footprint)]
    assert {moment.name for moment in moments} == {"broadcast"}
    assert dict(moments[0].by_category) == dict(moments[1].by_category)
