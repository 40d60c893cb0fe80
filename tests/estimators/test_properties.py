"""What must hold for any model and any run."""

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from estimators.analytic.attention import attention_kernel
from estimators.analytic.estimate import estimate, outliner_of, reach
from estimators.footprint import CATEGORIES, Footprint
from estimators.verdict import judge, max_micro_batch_size, max_sequence_length
from estimators.workload import METHODS, Batch, Method, Workload, with_batch
from profiles.errors import InputError
from profiles.gpus import all_gpus, find_gpu
from profiles.shapes import ModelShape

FEW = settings(max_examples=60, deadline=None)


@st.composite
def models(draw: st.DrawFn) -> ModelShape:
    heads = draw(st.sampled_from([1, 2, 4, 8, 12]))
    shared = draw(st.sampled_from([divisor for divisor in (1, 2, 4) if heads % divisor == 0]))
    width = draw(st.sampled_from([8, 32, 64, 80, 128]))
    return ModelShape(
        name="random",
        model_type="llama",
        hidden_size=draw(st.sampled_from([heads * width, 64, 96, 512])),
        intermediate_size=draw(st.integers(16, 4000)),
        num_hidden_layers=draw(st.integers(1, 40)),
        num_attention_heads=heads,
        num_key_value_heads=heads // shared,
        head_dim=width,
        vocab_size=draw(st.integers(10, 60000)),
        max_position_embeddings=draw(st.integers(64, 8192)),
        tie_word_embeddings=draw(st.booleans()),
        qkv_bias=draw(st.booleans()),
        output_bias=draw(st.booleans()),
        mlp_bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
    )


@st.composite
def methods(draw: st.DrawFn) -> Method:
    name = draw(st.sampled_from(sorted(METHODS)))
    galore = METHODS[name].parameterisation == "galore"
    implementation = draw(st.sampled_from(["galore-mem", "galore-torch"])) if galore else "galore-mem"
    sides = ["std"] if not galore else ["std", "reverse_std", "left", "right", "full"]
    return Method(
        name=name,
        update=draw(st.sampled_from(["whole", "per-layer"])),
        implementation=implementation,  # type: ignore[arg-type]
        rank=None if METHODS[name].parameterisation == "full" else draw(st.integers(1, 600)),
        proj_type=draw(st.sampled_from(sides)),
        optimizer_kernel=draw(st.sampled_from(["foreach", "fused", "loop"])),
    )


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    method = draw(methods())
    return Workload(
        model=draw(models()),
        method=method,
        precision=draw(st.sampled_from(["bf16", "fp32", "amp-bf16"])),
        batch=Batch(
            micro_batch_size=draw(st.integers(1, 9)),
            sequence_length=draw(st.integers(1, 3000)),
            gradient_accumulation_steps=draw(st.sampled_from([1, 1, 2, 5])),
        ),
        checkpointing=draw(st.sampled_from(["none", "full"])),
        attention=draw(st.sampled_from(["auto", "auto", "math", "eager"])),
        loss=draw(st.sampled_from(["full", "chunked"])),
        keep_outputs=draw(st.booleans()),
        use_cache=draw(st.booleans()),
        padding=draw(st.booleans()),
    )


@FEW
@given(workloads())
def test_totals_are_sums_and_peaks_are_ordered(workload: Workload) -> None:
    footprint = estimate(workload)
    outlines = list(outliner_of(workload, None).outlines())
    totals = {(outline.iteration, outline.name): outline.total_bytes for outline in outlines}
    for moment in footprint.moments:
        assert set(moment.by_category) <= set(CATEGORIES)
        assert all(nbytes > 0 for nbytes in moment.by_category.values())
        assert moment.live_bytes == totals[moment.iteration, moment.name]
    assert footprint.peak_live_bytes == max(totals.values())
    assert footprint.peak_live_bytes <= footprint.peak_allocated_bytes <= footprint.peak_reserved_bytes
    assert footprint.peak_reserved_bytes < footprint.process_bytes <= footprint.upper_bytes
    assert footprint.process_bytes == footprint.peak_live_bytes + sum(term.low_bytes for term in footprint.terms)
    assert footprint.upper_bytes == footprint.peak_live_bytes + sum(term.high_bytes for term in footprint.terms)
    assert reach(workload).upper_bytes == footprint.upper_bytes


@FEW
@given(workloads(), st.sampled_from(["batch", "sequence", "layers"]), st.integers(1, 7))
def test_more_takes_more(workload: Workload, what: str, more: int) -> None:
    batch, model = workload.batch, workload.model
    if what == "batch":
        larger = with_batch(workload, micro_batch_size=batch.micro_batch_size + more)
    elif what == "sequence":
        larger = with_batch(workload, sequence_length=batch.sequence_length + more)
    else:
        larger = replace(workload, model=replace(model, num_hidden_layers=model.num_hidden_layers + more))
    assert estimate(larger).peak_live_bytes >= estimate(workload).peak_live_bytes


@FEW
@given(workloads(), st.integers(1, 200))
def test_a_higher_rank_holds_more(workload: Workload, more: int) -> None:
    method = workload.method
    assume(method.rank is not None)
    # 8-bit states keep fp32 below 4096 elements, so a slightly higher rank can hold less: stay clear of that border.
    assume(method.optimizer != "adamw-8bit" or workload.model.hidden_size * (method.rank or 0) > 64 * 4096)
    higher = replace(workload, method=replace(method, rank=(method.rank or 0) + more))
    assert resident(estimate(higher)) >= resident(estimate(workload))


def resident(footprint: Footprint) -> int:
    return footprint.resident_bytes["optimizer_states"] + footprint.resident_bytes["projectors"]


@FEW
@given(workloads())
def test_per_layer_updates_never_hold_more_gradients(workload: Workload) -> None:
    assume(workload.batch.gradient_accumulation_steps == 1)
    whole, layers = (
        max(
            moment.by_category.get("gradients", 0)
            for moment in estimate(replace(workload, method=replace(workload.method, update=update))).moments
        )
        for update in ("whole", "per-layer")
    )
    assert layers <= whole


@FEW
@given(models(), st.sampled_from(["adamw", "adafactor"]), st.sampled_from(["bf16", "fp32"]))
def test_galore_at_full_rank_saves_nothing(model: ModelShape, inner: str, precision: str) -> None:
    plain = Workload(model=model, method=Method(name=inner), precision=precision)  # type: ignore[arg-type]
    galore = replace(plain, method=Method(name=f"galore-{inner}", rank=10**6))
    assert resident(estimate(galore)) >= resident(estimate(plain))


@settings(max_examples=25, deadline=None)
@given(workloads(), st.sampled_from([gpu.name for gpu in all_gpus() if gpu.vendor == "nvidia"]))
def test_the_longest_fits_and_one_more_does_not(workload: Workload, name: str) -> None:
    gpu = find_gpu(name)
    try:
        attention_kernel(workload, gpu)
    except InputError:
        assume(False)
    usable = gpu.usable_bytes // 8
    limit = max(workload.model.max_position_embeddings, workload.batch.sequence_length)
    length = max_sequence_length(workload, gpu, usable)
    size = max_micro_batch_size(workload, gpu, usable)
    for name, found, most in (("sequence_length", length, limit), ("micro_batch_size", size, 65536)):
        assert found == 0 or reach(with_batch(workload, **{name: found}), gpu).upper_bytes <= usable
        assert found == most or reach(with_batch(workload, **{name: found + 1}), gpu).upper_bytes > usable


def test_verdicts_follow_the_bounds() -> None:
    from profiles.models import find_model

    gpu = find_gpu("4090")
    workload = Workload(model=find_model("llama-7b").shape, method=Method(name="adamw-8bit"))
    footprint = estimate(workload, gpu)
    for usable, verdict in (
        (footprint.upper_bytes, "fits"),
        (footprint.upper_bytes - 1, "tight"),
        (footprint.process_bytes, "tight"),
        (footprint.process_bytes - 1, "does-not-fit"),
    ):
        fit = judge(workload, replace(gpu, usable_bytes=usable))
        assert fit.verdict == verdict
        assert fit.headroom_bytes == usable - footprint.upper_bytes
    assert judge(workload, replace(gpu, usable_bytes=footprint.upper_bytes + 7), other_use_bytes=7).verdict == "fits"


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_has_a_footprint(name: str) -> None:
    from profiles.models import find_model

    rank = None if METHODS[name].parameterisation == "full" else 128
    for update in ("whole", "per-layer"):
        workload = Workload(
            model=find_model("llama-60m").shape,
            method=Method(name=name, rank=rank, update=update),
        )
        assert estimate(workload).peak_live_bytes > 0
