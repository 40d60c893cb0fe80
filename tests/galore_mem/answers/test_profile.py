"""A profile on CPU tensors: it agrees with the trace of the same workload, tells steps apart, and says what it is."""

import json
from typing import Any

import pytest

from estimators.workload import Workload
from galore_mem.answers.settings import Settings, workloads
from profiles.errors import InputError
from profiles.shapes import ModelShape

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

SHAPE = ModelShape(
    name="small",
    model_type="llama",
    hidden_size=128,
    intermediate_size=352,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    vocab_size=500,
    max_position_embeddings=128,
)
METHODS = ("galore-adamw", "galore-adamw-8bit", "galore-adafactor", "adamw", "adamw-8bit", "lora")


def small(method: str, **settings: Any) -> Workload:  # noqa: ANN401
    """A run of a model of two layers."""
    rank = {"rank": 16} if method.startswith(("galore", "lora")) else {}
    (workload,) = workloads(SHAPE, (method,), Settings(**{"seq": 64, **rank, **settings}))
    return workload


@pytest.mark.parametrize("update", ["whole", "per-layer"])
@pytest.mark.parametrize("method", METHODS)
def test_replayed_cpu_step_agrees_with_the_trace(method: str, update: str) -> None:
    from galore_mem.answers.profile_cpu import record_on_cpu
    from galore_mem.answers.recorded import resident_bytes
    from galore_mem.answers.steps import record
    from galore_mem.profiler.recording import peaks_of

    workload = small(method, update=update)
    run = record_on_cpu(workload, "flash", steps=2)
    ran = run.recording
    traced = record(workload, "flash")
    assert resident_bytes(ran) == resident_bytes(traced)
    for window in ("forward_end", "backward_start", "backward_end", "step", "layer_update", "refresh"):
        ours, theirs = ([peak.live_bytes for peak in peaks_of(it) if peak.window == window] for it in (ran, traced))
        assert max(ours, default=0) == pytest.approx(max(theirs, default=0), rel=0.01), window
    kinds = [step.kind for step in run.steps]
    assert kinds == ["first", "refresh" if method.startswith("galore") else "steady"]


def test_everything_of_a_cpu_run_is_labelled_replayed() -> None:
    from galore_mem.answers.profile import profile

    result = profile(small("galore-adamw"), device="cpu", steps=2, gpus="4090")
    assert result.tape.source == result.footprint.source == "replayed"
    assert {fit.footprint.source for fit in result.fits} == {"replayed"}
    content = json.loads(json.dumps(result.to_dict()))
    assert content["schema"] == "galore-mem/profile/1"
    assert content["environment"]["device"] == "cpu"
    first, last = content["steps"]
    assert (first["kind"], last["kind"]) == ("first", "refresh")
    assert first["seconds"]["backward"] > 0
    assert 0 < first["start"] < last["start"] < result.replay.events


@pytest.mark.parametrize("kernel", ["flash", "efficient", "cudnn"])
def test_fused_attention_on_cpu_keeps_the_tensors_of_cuda_and_the_values_of_torch(kernel: str) -> None:
    import torch

    from estimators.analytic.cards import USUAL
    from estimators.analytic.efficient_attention import efficient_kernel
    from galore_mem.training.attention import _Fused

    torch.manual_seed(0)
    q, k, v = inputs = [torch.randn(1, heads, 64, 32, requires_grad=True) for heads in (4, 2, 2)]
    runs = efficient_kernel(USUAL, 4, 32, 0.0)
    out = _Fused.apply(q, k, v, None, kernel, runs)  # type: ignore[no-untyped-call]
    weight = torch.randn_like(out)
    found = torch.autograd.grad((out * weight).sum(), inputs)
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(out, plain)
    torch.testing.assert_close(found, torch.autograd.grad((plain * weight).sum(), inputs))


@pytest.mark.parametrize(
    ("words", "said"),
    [({"device": "tpu"}, "--device tpu"), ({"steps": 0}, "--steps 0"), ({"steps": True}, "--steps True")],
)
def test_what_means_nothing_is_refused(words: dict[str, Any], said: str) -> None:
    from galore_mem.answers.profile import profile

    with pytest.raises(InputError) as refusal:
        profile(small("sgd"), **{"device": "cpu", **words})
    assert said in str(refusal.value)


def test_a_model_that_this_machine_cannot_hold_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from galore_mem.answers.profile import profile
    from galore_mem.errors import GaloreMemError

    monkeypatch.setattr("galore_mem.answers.profile_cpu.free_bytes", lambda: 1 << 30)
    with pytest.raises(GaloreMemError) as refusal:
        profile("llama-7b", device="cpu")
    assert "too little memory" in str(refusal.value)
    assert "and 1.0 are free" in str(refusal.value)
    assert "galore-mem trace" in str(refusal.value)
