"""The plan's answers: the story, its verdicts, and what Python callers get."""

import json
from typing import Any

import pytest

import galore_mem as gm
from galore_mem.answers.advice import NOTABLE_SHARE
from galore_mem.answers.changes import Offer, alternatives, cost_of, in_order, offers
from galore_mem.answers.plan import PlanResult
from galore_mem.answers.settings import Settings
from galore_mem.answers.ways_out import ways_out
from profiles.errors import InputError

GIB = 2**30


@pytest.fixture(scope="module")
def story() -> PlanResult:
    return gm.plan("llama-7b", gpus="4090")


def test_the_story_of_the_paper(story: PlanResult) -> None:
    """One 24 GB card: full AdamW and whole updates do not fit, 8-bit GaLore per layer at rank 1024 does."""
    verdicts = {(plan.workload.method.name, plan.workload.method.update): plan.fits[0].verdict for plan in story.plans}
    assert verdicts == {
        ("adamw", "whole"): "does-not-fit",
        ("adamw-8bit", "whole"): "does-not-fit",
        ("lora", "whole"): "fits",
        ("galore-adamw", "whole"): "does-not-fit",
        ("galore-adamw-8bit", "whole"): "does-not-fit",
        ("galore-adamw-8bit", "per-layer"): "fits",
    }
    per_layer = story.plans[-1]
    assert per_layer.workload.method.rank == 1024
    assert per_layer.fits[0].max_sequence_length >= 256


@pytest.mark.parametrize(("batch", "exact"), [(10, False), (16, True)])
def test_the_story_with_checkpointing_fits_more_sequences(batch: int, exact: bool) -> None:
    result = gm.plan(
        "llama-7b",
        gpus="4090",
        methods="galore-adamw-8bit",
        update="per-layer",
        checkpointing="full",
        batch=batch,
        exact=exact,
    )
    assert result.all_fit


@pytest.mark.parametrize("other", [0, "1GiB"])
def test_the_advice_is_the_most_faithful_that_fits(other: str | int) -> None:
    result = gm.plan("llama-7b", gpus="4090", other_use=other)
    assert result.advice is not None
    assert result.advice.workload.method.name == "galore-adamw-8bit"
    assert result.advice.fit == result.plans[result.advice.index].fits[0]


def test_the_one_change_is_really_estimated_and_is_no_row_of_the_plan(story: PlanResult) -> None:
    assert story.advice is not None
    change = story.advice.change
    assert change is not None
    assert change.saved_bytes == story.advice.fit.upper_bytes - change.fit.upper_bytes > 0
    assert change.workload not in [plan.workload for plan in story.plans]


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("a100-40gb", {"methods": "galore-adamw-8bit"}),
        ("4090", {"methods": "adamw"}),
        ("4090", {"methods": "adamw-8bit", "update": "per-layer"}),
    ],
)
def test_a_run_that_does_not_fit_gets_the_cheapest_way_out(card: str, words: dict[str, Any]) -> None:
    """The same that `galore-mem oom` names for it, be it one change or several."""
    advice = gm.plan("llama-7b", gpus=card, batch=4, **words).advice
    assert advice is not None
    assert advice.fit.verdict != "fits"
    way = ways_out(advice.workload, advice.fit.gpu)[0]
    assert advice.change == way
    assert (way.fit.verdict, len(way.costs)) == ("fits", len(way.changes))
    names = [change.split()[0] for change in way.changes]
    assert len(set(names)) == len(names), "each option is typed once"


def test_more_room_is_looked_for_where_it_costs_least() -> None:
    """Halving the rank would free more, and change the training."""
    advice = gm.plan("llama-7b", gpus="a100-80gb", methods="galore-adamw").advice
    assert advice is not None
    assert advice.change is not None
    assert advice.change.changes != ("--rank 512",)
    singles = offers(advice.workload, advice.fit.gpu, fits=True)
    cheaper = [one for one in singles if cost_of(one.options)[0] < cost_of(advice.change.changes[0])[0]]
    assert all(one.upper_bytes > advice.fit.upper_bytes * (1 - NOTABLE_SHARE) for one in cheaper)


def test_what_is_called_more_room_lets_more_fit() -> None:
    """A fused kernel takes a step's temporaries off: where longer ones end in backward, their bound is lower, too."""
    result = gm.plan("llama-1b", gpus="3090", methods="adamw", batch=4, data_parallel=2)
    assert result.advice is not None
    assert result.advice.change is not None
    before, then = result.advice.fit, result.advice.change.fit
    fused = next(
        one
        for one in offers(result.advice.workload, before.gpu, fits=True)
        if one.options == "--optimizer-kernel fused"
    )
    assert fused.upper_bytes < before.upper_bytes * (1 - NOTABLE_SHARE)
    assert then.max_sequence_length > before.max_sequence_length


def test_what_a_replayed_plan_is_advised_saves_what_is_said() -> None:
    """The advised run, planned the same way, is that much smaller; the closed form's bound is another figure."""
    words: dict[str, Any] = {"gpus": "4060", "methods": "adamw", "optimizer_kernel": "fused", "batch": 48}
    asked = gm.plan("llama-60m", exact=True, **words)
    assert asked.advice is not None
    assert asked.advice.change is not None
    assert asked.advice.change.changes == ("--loss chunked",)
    advised = gm.plan("llama-60m", exact=True, loss="chunked", **words)
    then = advised.plans[0].fits[0].upper_bytes
    assert asked.advice.change.fit.upper_bytes == then
    assert asked.advice.change.saved_bytes == asked.plans[0].fits[0].upper_bytes - then


def test_what_fits_when_replayed_is_itself_within_what_fits() -> None:
    """The closed form's bound is above this card, and the longest sequence by it shorter than the run's own."""
    words: dict[str, Any] = {"gpus": "3090", "methods": "lora", "batch": 4}
    assert gm.plan("llama-7b", **words).plans[0].fits[0].verdict == "tight"
    found = gm.plan("llama-7b", exact=True, **words).plans[0].fits[0]
    assert (found.verdict, found.max_sequence_length, found.max_micro_batch_size) == ("fits", 256, 4)


def test_a_few_tokens_are_no_room() -> None:
    """Per-layer updates of adapters add 45 tokens to 1,238; another forward adds many more."""
    advice = gm.plan("qwen3-4b", gpus="4090", methods="lora", seq=512).advice
    assert advice is not None
    assert advice.change is not None
    assert advice.change.changes == ("--checkpointing full",)


def test_four_bits_are_offered_where_they_can_be_planned() -> None:
    advice = gm.plan("llama-2-13b", gpus="4090", methods="lora").advice
    assert advice is not None
    assert advice.change is not None
    assert advice.change.changes == ("--method qlora",)
    workload = gm.plan("t5-base", methods="lora").plans[0].workload
    assert "--method qlora" not in [one.options for one in offers(workload, None, fits=False)]


def test_enough_comes_before_cheap_and_cheap_before_large() -> None:
    workload = gm.plan("llama-60m", methods="adamw").plans[0].workload
    made = [
        Offer(options=options, workload=workload, upper_bytes=nbytes)
        for options, nbytes in (
            ("--seq 128", 10),
            ("--zero-grad start", 90),
            ("--checkpointing full", 50),
            ("--loss chunked", 60),
            ("--rank 4", 99),
        )
    ]
    assert [one.options for one in in_order(made, 60)] == [
        *("--loss chunked", "--checkpointing full", "--seq 128", "--zero-grad start", "--rank 4")
    ]


def test_where_nothing_fits_the_nearest_is_named() -> None:
    result = gm.plan("llama-2-70b", gpus="4090")
    assert result.advice is not None
    assert result.advice.fit.verdict == "does-not-fit"
    assert result.advice.fit.upper_bytes == min(plan.fits[0].upper_bytes for plan in result.plans)


def test_other_use_is_taken_from_the_card(story: PlanResult) -> None:
    crowded = gm.plan("llama-7b", gpus="4090", other_use="3GiB")
    for alone, beside in zip(story.plans, crowded.plans, strict=True):
        assert alone.fits[0].headroom_bytes - beside.fits[0].headroom_bytes == 3 * GIB


def test_a_budget_is_kept_by_the_upper_bound_alone(story: PlanResult) -> None:
    bound = story.plans[-1].fits[0].upper_bytes
    for budget, kept in ((bound, True), (bound - 1, False)):
        result = gm.plan("llama-7b", gpus="4090", methods="galore-adamw-8bit", update="per-layer", budget=budget)
        assert result.within_budget is kept


def test_without_a_card_there_are_figures_but_no_verdicts() -> None:
    result = gm.plan("qwen3-0.6b", methods="adamw")
    assert result.plans[0].fits == ()
    assert result.advice is None
    assert result.plans[0].footprint.peak_live_bytes > 2 * result.parameters


def test_json_holds_the_contract(story: PlanResult) -> None:
    data = json.loads(json.dumps(story.to_dict()))
    assert data["schema"] == "galore-mem/plan/1"
    assert data["model"]["name"] == "llama-7b"
    assert data["model"]["parameters"] == 6738415616
    plan = data["plans"][-1]
    assert set(plan) >= {"workload", "footprint", "fits"}
    assert plan["workload"]["method"]["rank"] == 1024
    assert plan["workload"]["batch"] == {
        "micro_batch_size": 1,
        "sequence_length": 256,
        "gradient_accumulation_steps": 1,
    }
    footprint = plan["footprint"]
    assert footprint["source"] == "analytic"
    assert sum(footprint["at_peak_bytes"].values()) == footprint["peak_live_bytes"]
    assert footprint["peak_moment"] != footprint["runner_up_moment"]
    (fit,) = plan["fits"]
    assert fit["headroom_bytes"] == fit["usable_bytes"] - fit["upper_bytes"]
    assert set(fit) == {
        *("gpu", "usable_bytes", "verdict", "peak_reserved_bytes", "process_bytes", "upper_bytes"),
        *("headroom_bytes", "max_sequence_length", "max_micro_batch_size"),
    }


def test_several_cards_give_one_fit_each_in_order() -> None:
    result = gm.plan("qwen3-0.6b", gpus=["h100", "4090"], methods=["adamw"])
    assert [fit.gpu.name for fit in result.plans[0].fits] == ["H100 80GB SXM", "RTX 4090"]
    assert result.plans[0].footprint == result.plans[0].fits[0].footprint


def test_the_advice_is_for_the_first_card_that_something_fits() -> None:
    for cards, adviser in ((("4090", "h100", "h200"), "H100 80GB SXM"), (("4090", "3090"), "RTX 4090")):
        advice = gm.plan("llama-7b", gpus=cards, methods="adamw").advice
        assert advice is not None
        assert advice.fit.gpu.name == adviser


def test_notes_tell_what_may_surprise() -> None:
    result = gm.plan("llama-7b", methods="galore-adamw", rank=8192, seq=4096)
    assert len(result.notes) == 2
    assert any("rank 8192" in note for note in result.notes)
    assert any("4096 tokens" in note for note in result.notes)


def test_settings_and_keywords_exclude_each_other() -> None:
    with pytest.raises(InputError, match="settings"):
        gm.plan("llama-7b", settings=Settings(rank=4), rank=8)


def test_a_pinned_kernel_that_the_card_lacks_is_refused() -> None:
    with pytest.raises(InputError, match="flash"):
        gm.plan("llama-7b", gpus="v100-16gb", attention="flash")
    with pytest.raises(InputError, match="flash"):
        gm.plan("llama-7b", gpus="4090", attention="flash", precision="fp32")


@pytest.mark.parametrize(
    ("platform", "methods", "said"), [("win32", "adamw", 1), ("win32", "sgd", 0), ("linux", "adamw", 0)]
)
def test_windows_spills_where_others_refuse(
    platform: str, methods: str, said: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from galore_mem.answers.plan import plan as answer

    monkeypatch.setattr("sys.platform", platform)
    found = answer("llama-7b" if methods == "adamw" else "llama-60m", gpus="4090", methods=methods)
    assert sum("on Windows" in note for note in found.notes) == said


def test_a_replay_settles_what_the_bound_alone_leaves_open() -> None:
    words: dict[str, Any] = {"gpus": "3080", "methods": "adamw-8bit", "batch": 4}
    loose, exact = gm.plan("llama-1b", **words), gm.plan("llama-1b", exact=True, **words)
    assert loose.advice is not None
    assert exact.advice is not None
    assert loose.advice.fit.verdict == "tight"
    assert loose.advice.replayed is not None
    assert loose.advice.replayed.footprint == exact.plans[0].fits[0].footprint
    assert loose.to_dict()["advice"]["replayed"]["verdict"] == "fits"
    assert exact.advice.replayed is None


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_adapters_are_not_told_to_step_apart(method: str) -> None:
    (plan,) = gm.plan("llama-7b", gpus="4090", methods=method).plans
    options = [option for option, _ in alternatives(plan.workload, fits=True)]
    assert "--checkpointing full" in options
    assert "--update per-layer" not in options  # as `fit` does not try it: gradients of adapters are small
