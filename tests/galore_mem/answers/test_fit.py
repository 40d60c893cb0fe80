"""What `fit` recommends, and that it holds what it says."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from estimators.analytic.estimate import estimate
from estimators.footprint import Footprint
from estimators.verdict import judge, max_micro_batch_size
from estimators.workload import Workload, with_batch
from galore_mem.answers.candidates import Form, Option, forms, option_of, options
from galore_mem.answers.exact import confirmed, is_compared
from galore_mem.answers.fit import FitResult, fit, preference
from galore_mem.answers.misses import is_near
from galore_mem.answers.names import Card
from galore_mem.answers.reasons import describe, missing, reasons
from galore_mem.answers.replayed import Replays
from galore_mem.answers.wishes import Wishes
from profiles.errors import InputError
from profiles.gpus import find_gpu
from profiles.models import find_model


@pytest.fixture(scope="module")
def seven() -> FitResult:
    return fit("llama-7b", gpus="4090")


def test_it_finds_per_layer_8_bit_galore_and_its_best_batch(seven: FitResult) -> None:
    found = seven.best.recommended
    assert found is not None
    workload = found.option.workload
    assert (workload.method.name, workload.method.rank) == ("galore-adamw-8bit", 1024)
    assert (workload.method.update, workload.checkpointing) == ("per-layer", "full")
    by_closed_form = max_micro_batch_size(workload, find_gpu("4090"), find_gpu("4090").usable_bytes)
    assert workload.batch.micro_batch_size >= by_closed_form > 12


def test_it_says_why(seven: FitResult) -> None:
    found = seven.best.recommended
    assert found is not None
    why = " ".join(found.why)
    assert "nothing nearer to full-rank AdamW fits: adamw-8bit per-layer" in why
    assert "without per-layer updates its tensors would take" in why
    assert "instead of" in why
    assert seven.best.runner_up is not None
    assert [option.workload.method.name for option in seven.best.near_misses] == ["adamw-8bit", "adamw"]


def test_everything_on_the_front_fits_and_nothing_seen_beats_it(seven: FitResult) -> None:
    def costs(option: Any) -> tuple[Any, ...]:  # noqa: ANN401
        return option.reach.upper_bytes, option.fidelity.key, option.relative_work

    card = Card(gpu=find_gpu("4090"))
    seen = [option for option in options(seven.model.shape, Wishes(), card) if option.missing_bytes <= 0]
    assert len(seven.best.front) >= 10
    assert seven.best.recommended is not None
    assert seven.best.recommended.option in seven.best.front
    for option in seven.best.front:
        if option.is_replayed:
            assert option.missing_bytes <= 0
            continue
        assert judge(option.workload, card.gpu).verdict == "fits"
        own = costs(option)
        assert not any(
            costs(other) != own and all(a <= b for a, b in zip(costs(other), own, strict=True)) for other in seen
        )


def test_sixteen_gigabytes_are_told_honestly() -> None:
    """No rank of a quarter of the width, no full Adam: what is missing is said."""
    found = fit("llama-7b", gpus="4060ti-16gb", min_rank=1024).best
    assert found.recommended is None or found.recommended.option.fidelity.key[0] > 1
    missing = {option.workload.method.name: option.missing_bytes for option in found.near_misses}
    assert missing["galore-adamw-8bit"] > 0
    assert missing["adamw-8bit"] > missing["galore-adamw-8bit"]


@pytest.mark.parametrize(
    ("objective", "words"),
    [("batch", {}), ("sequence", {"batch": 1}), ("rank", {}), ("fidelity", {"checkpointing": "none", "seq": 512})],
)
def test_an_objective_is_as_large_as_can_be(objective: str, words: dict[str, Any]) -> None:
    """It holds when replayed, and one more of what was asked for does not."""
    found = fit("llama-7b", gpus="4090", objective=objective, **words).best.recommended
    assert found is not None
    workload, gpu = found.option.workload, find_gpu("4090")
    method, batch = workload.method, workload.batch
    more = {
        "batch": with_batch(workload, micro_batch_size=batch.micro_batch_size + 1),
        "fidelity": with_batch(workload, micro_batch_size=batch.micro_batch_size + 1),
        "sequence": with_batch(workload, sequence_length=int(batch.sequence_length * 1.05)),
        "rank": replace(workload, method=replace(method, rank=(method.rank or 0) + 128)),
    }[objective]
    assert replayed_bytes(workload) == found.footprint.upper_bytes <= gpu.usable_bytes
    at_the_limit = objective == "sequence" and batch.sequence_length == workload.model.max_position_embeddings
    assert at_the_limit or replayed_bytes(more) > gpu.usable_bytes


def replayed_bytes(workload: Workload) -> int:
    """The upper bound of a run on an RTX 4090 by the replay of its whole history."""
    gpu = find_gpu("4090")
    return confirmed(workload, estimate(workload, gpu), gpu).upper_bytes


def test_a_miss_is_told_by_one_figure_everywhere() -> None:
    """What was not replayed misses by what is sure, in the reasons as in the table."""
    best = fit("llama-7b", gpus="4090").best
    assert best.recommended is not None
    nearest, *others = best.near_misses
    assert not nearest.is_replayed
    assert nearest.told_missing_bytes == nearest.least_missing_bytes < nearest.missing_bytes
    assert all(nearest.told_missing_bytes <= other.told_missing_bytes for other in others)
    assert f"misses by {nearest.least_missing_bytes / 2**30:.2f} GiB or more" in " ".join(best.recommended.why)


def test_what_is_called_the_leanest_takes_the_least() -> None:
    """Where nothing fits it is replayed, and no other method can take as little."""
    leanest, *others = fit("llama-7b", gpus="4060").best.near_misses
    assert (leanest.is_replayed, leanest.miss_is) == (True, "")
    assert others
    for other in others:
        replayed = confirmed_on("4060", other.workload)
        assert leanest.missing_bytes < other.surely_missing_bytes <= replayed.upper_bytes - other.usable_bytes
        assert (other.is_replayed, other.miss_is) == (False, "or more")


def test_a_row_tells_of_the_form_that_takes_the_least() -> None:
    """Adafactor's bound is lower for a whole-model update: per layer takes less."""
    rows = fit("gemma-2-2b", gpus="4060", methods=("adafactor",)).best.near_misses
    (row,) = rows
    whole = replace(row.workload, method=replace(row.workload.method, update="whole"))
    assert row.workload.method.update == "per-layer"
    assert confirmed_on("4060", row.workload).upper_bytes < confirmed_on("4060", whole).upper_bytes


def test_what_fits_when_replayed_is_no_miss() -> None:
    """GaLore r48 exceeds the card by its bound only, beside an 8-bit recommendation of a higher rank."""
    best = fit("qwen2.5-1.5b", gpus="4060").best
    assert "galore-adamw" not in {option.workload.method.name for option in best.near_misses}
    assert all(option.missing_bytes > 0 for option in best.near_misses)


def test_only_what_is_near_is_said_to_just_miss(seven: FitResult) -> None:
    assert [is_near(option) for option in seven.best.near_misses] == [True, False]
    for option, row in zip(seven.best.near_misses, seven.to_dict()["near_misses"], strict=True):
        assert option.told_missing_bytes == row["surely_missing_bytes"] < row["missing_bytes"]
    huge = fit("llama-2-70b", gpus="4060").best.near_misses
    assert not any(is_near(option) for option in huge)


def test_what_would_be_without_a_setting_agrees_with_exact_plans(seven: FitResult) -> None:
    """By tensors, which a replay does not change: by how much more blocks would hold is not said unseen."""
    found = seven.best.recommended
    assert found is not None
    workload, gpu = found.option.workload, find_gpu("4090")
    whole = replace(workload, method=replace(workload.method, update="whole"))
    more = confirmed_on("4090", whole).peak_live_bytes - confirmed_on("4090", workload).peak_live_bytes
    (reason,) = (reason for reason in found.why if "without per-layer updates" in reason)
    assert f"its tensors would take {more / 2**30:.2f} GiB more, and it would not fit" in reason
    assert confirmed_on("4090", whole).upper_bytes > gpu.usable_bytes


def test_what_was_replayed_anyhow_is_told_by_its_replay(seven: FitResult) -> None:
    best = seven.best.option
    assert best is not None
    told = reasons(best, seven.best.recommended.footprint, (), (), known=replayed_option)  # type: ignore[union-attr]
    (reason,) = (reason for reason in told if "without the chunked loss" in reason)
    full = replayed_option(option_of(replace(best.workload, loss="full"), best.card))
    more = full.reach.process_bytes - best.reach.process_bytes
    assert f"it would take {more / 2**30:.2f} GiB more, and not fit" in reason


def replayed_option(option: Option) -> Option:
    return Replays(option.card, may_expand=False).of(option)


def test_the_runner_up_takes_the_same_wherever_it_is_named() -> None:
    best = fit("llama-1b", gpus="4090", methods=("adamw", "adamw-8bit"), batch=4).best
    assert best.runner_up is not None
    assert best.runner_up.is_replayed
    assert [option for option in best.front if option.workload == best.runner_up.workload] == [best.runner_up]


def test_what_the_replica_refuses_is_not_recommended() -> None:
    """By its bound one sequence fits; replayed two do, and three would take 24,080 MiB of segments, as traced.

    That is under the allocator's default settings; under expandable segments three do as well.
    """
    words: dict[str, Any] = {"update": "per-layer", "checkpointing": "full", "seq": 1024}
    expanded = fit("qwen3-4b", gpus="4090", methods=("adamw-8bit",), **words).best.option
    assert expanded is not None
    assert (expanded.batch.micro_batch_size, expanded.workload.allocator_settings) == (3, "expandable_segments:True")
    found = fit("qwen3-4b", gpus="4090", methods=("adamw-8bit",), alloc_conf="", **words)
    best = found.best.recommended
    assert best is not None
    workload, gpu = best.option.workload, find_gpu("4090")
    assert max_micro_batch_size(workload, gpu, gpu.usable_bytes) == 1
    assert workload.batch.micro_batch_size == 2
    assert replayed_bytes(workload) <= gpu.usable_bytes < replayed_bytes(with_batch(workload, micro_batch_size=3))
    assert found.best.runner_up is None or replayed_bytes(found.best.runner_up.workload) <= gpu.usable_bytes
    assert best.to_dict()["replayed"] is True


def test_what_misses_by_its_bound_only_is_replayed_before_it_is_given_up() -> None:
    """Full AdamW with 8-bit states: too much by the bound that traced runs gave, but not for the replica."""
    found = fit("llama-1b", gpus="4060", seq=512)
    best = found.best.recommended
    assert best is not None
    assert judge(best.option.workload, find_gpu("4060")).verdict == "tight"
    assert best.fits[0].verdict == "fits"


ACCUMULATED: dict[str, Any] = {"gpus": "4060", "methods": ("galore-adamw",), "update": "per-layer"}
ACCUMULATED |= {"global_batch": 8, "batch": 1}


def test_a_run_that_accumulates_per_layer_is_replayed() -> None:
    best = fit("llama-1b", **ACCUMULATED).best.recommended
    assert best is not None
    assert best.option.is_replayed


def test_a_run_without_a_written_history_keeps_the_bound_of_the_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise InputError("no exact history")

    monkeypatch.setattr("galore_mem.answers.replayed.confirmed_reach", refuse)
    best = fit("llama-1b", **ACCUMULATED).best.recommended
    assert best is not None
    assert not best.option.is_replayed
    assert best.footprint == estimate(best.option.workload, find_gpu("4060"))


def test_large_misses_are_told_in_groups_of_digits() -> None:
    found = fit("llama-7b", gpus="4090", methods=("adamw",), update="whole", seq=10**8).best.near_misses[0]
    assert missing(found).partition(".")[0].count(",") >= 1


def test_one_method_is_one_word() -> None:
    assert fit("llama-60m", gpus="4090", methods="lora").wishes.methods == ("lora",)


def test_where_nothing_fits_adapters_beside_four_bits_are_said_to_fit() -> None:
    found = fit("llama-7b", gpus="3060-ti").best
    assert found.option is None
    assert found.unasked is not None
    assert (found.unasked.workload.method.name, found.unasked.missing_bytes <= 0) == ("qlora", True)
    assert fit("llama-7b", gpus="3060-ti", methods=("adamw",)).best.unasked is None
    assert fit("llama-60m", gpus="4090").best.unasked is None


def test_what_exceeds_the_card_by_its_bound_is_not_sure_to_fit() -> None:
    ends = {}
    for model, card, tokens in (("llama-1b", "4090", 256), ("llama-350m", "4060", 1024)):
        found = fit(model, gpus=card, seq=tokens, loss="chunked").best.recommended
        assert found is not None
        (without,) = (reason for reason in found.why if "without the chunked loss" in reason)
        ends[model] = without.partition("GiB more, ")[2]
    assert ends == {"llama-1b": "and it would not fit", "llama-350m": "and it would not be sure to fit"}


def test_expandable_segments_are_looked_at_where_more_fits_under_them() -> None:
    found = fit("llama-7b", gpus="h100").best
    option = found.option
    assert option is not None
    assert option.workload.allocator_settings == "expandable_segments:True"
    recommended = found.recommended
    assert recommended is not None
    (reason,) = (reason for reason in recommended.why if "without expandable segments" in reason)
    plain = replace(option.workload, allocator_settings="")
    more = confirmed_on("h100", plain).peak_reserved_bytes - option.reach.reserved_bytes
    assert f"{more / 2**30:.2f} GiB more unused, and the run would not fit" in reason
    assert confirmed_on("h100", plain).upper_bytes > option.usable_bytes >= option.reach.upper_bytes
    asked = fit("llama-7b", gpus="h100", alloc_conf="").best.option
    assert asked is not None
    assert not asked.workload.allocator_settings
    assert asked.batch.micro_batch_size < option.batch.micro_batch_size


@pytest.mark.parametrize(
    ("model", "card", "words"),
    [("bert-large", "4060", {"seq": 512}), ("gpt2-xl", "4090", {"seq": 1024}), ("bloom-7b1", "h100", {"seq": 1024})],
)
def test_expandable_segments_are_looked_at_for_every_family(model: str, card: str, words: dict[str, Any]) -> None:
    found, plain = (fit(model, gpus=card, alloc_conf=conf, **words).best.option for conf in (None, ""))
    assert found is not None
    assert plain is not None
    assert found.workload.allocator_settings == "expandable_segments:True"
    assert found.batch.micro_batch_size > plain.batch.micro_batch_size


def test_expandable_segments_that_hold_less_hide_nothing_that_the_default_settings_hold() -> None:
    """Holes of a table of 250,880 rows make some lengths reserve 1.7 GiB more under expandable segments."""
    longest = [fit("bloom-7b1", gpus="4090", objective="sequence", alloc_conf=conf).best.option for conf in (None, "")]
    found, plain = (option.batch.sequence_length for option in longest if option is not None)
    assert found >= plain


def test_the_default_kernel_is_kept_where_the_default_settings_hold_as_much_with_it() -> None:
    """Expandable segments hold ten sequences of either kernel here, the default settings eleven."""
    found = fit("llama-3.2-1b", gpus="a100-80gb", seq=2048).best.option
    assert found is not None
    assert (found.workload.method.optimizer_kernel, found.workload.allocator_settings) == ("foreach", "")


def test_where_the_model_allows_no_longer_sequence_more_of_them_are_taken() -> None:
    longest = fit("llama-1b", gpus="4090", objective="sequence").best.option
    assert longest is not None
    assert (longest.batch.sequence_length, longest.missing_bytes <= 0) == (2048, True)
    assert longest.batch.micro_batch_size > 1
    given = fit("llama-1b", gpus="4090", seq=2048).best.option
    assert given is not None
    assert describe(given.workload) == describe(longest.workload)
    lone = fit("llama-1b", gpus="4090", objective="sequence", batch=1).best.option
    assert lone is not None
    assert lone.batch.micro_batch_size == 1


def test_who_asks_for_long_sequences_is_not_sent_to_a_few_tokens() -> None:
    """Of 28 tokens expandable segments would have room beside rank 256; the default ones have it for 256."""
    found = fit("qwen3-8b", gpus="l4", objective="sequence").best
    assert found.option is not None
    assert found.option.batch.sequence_length >= 256
    assert min(option.batch.sequence_length for option in found.front) >= 256


def test_expandable_segments_are_not_looked_at_where_nobody_tried_them() -> None:
    """Of AMD's cards, and where other settings are asked for."""
    for card, settings in (("mi300x", None), ("4090", "max_split_size_mb:128")):
        option = fit("llama-3b", gpus=card, methods=("galore-adamw",), alloc_conf=settings).best.option
        assert option is not None
        assert option.workload.allocator_settings == (settings or "")


def confirmed_on(card: str, workload: Workload) -> Footprint:
    gpu = find_gpu(card)
    return confirmed(workload, estimate(workload, gpu), gpu)


def test_a_division_of_the_global_batch_may_fit_beyond_its_bound() -> None:
    found = fit("llama-1b", gpus="4090", seq=2048, global_batch=64).best.option
    assert found is not None
    batch = found.batch
    assert (batch.micro_batch_size, batch.gradient_accumulation_steps, found.is_replayed) == (2, 32, True)
    gpu = find_gpu("4090")
    assert found.reach.upper_bytes <= gpu.usable_bytes < estimate(found.workload, gpu).upper_bytes


def test_the_fused_kernel_is_taken_where_the_default_ones_scratch_is_too_much() -> None:
    found = fit("llama-3b", gpus="4090").best.recommended
    assert found is not None
    method = found.option.workload.method
    assert (method.name, method.optimizer_kernel) == ("adamw", "fused")
    assert any(reason.startswith("without the fused kernel") and "not fit" in reason for reason in found.why)
    spacious = fit("llama-350m", gpus="4090", batch=1).best.option
    assert spacious is not None
    assert spacious.workload.method.optimizer_kernel == "foreach"


def test_a_kernel_that_keeps_less_is_taken_where_that_makes_room() -> None:
    """GPT-NeoX makes queries head after head, and flash lays its output out like them: it is kept twice."""
    words: dict[str, Any] = {"methods": ("adamw-8bit",), "update": "whole", "checkpointing": "none", "seq": 2048}
    found = fit("pythia-1b", gpus="4090", objective="batch", **words).best
    assert found.recommended is not None
    option = found.recommended.option
    assert option.workload.attention == "efficient"
    assert any(reason.startswith("without --attention efficient") for reason in found.recommended.why)
    auto = fit("pythia-1b", gpus="4090", objective="batch", attention="auto", **words).best.option
    assert auto is not None
    assert auto.batch.micro_batch_size < option.batch.micro_batch_size


def test_what_wastes_less_between_segments_than_the_closed_form_allows_for_is_found() -> None:
    found = fit("llama-7b", gpus="4090", methods=("galore-adamw",)).best.recommended
    assert found is not None
    option = found.option
    assert (option.workload.method.rank, option.is_replayed, option.missing_bytes <= 0) == (1024, True, True)
    closed = estimate(option.workload, find_gpu("4090"))
    assert closed.upper_bytes - closed.terms[1].high_bytes > option.usable_bytes  # none lost between blocks


def test_a_bound_that_no_replay_was_compared_for_is_said_to_be_the_closed_forms() -> None:
    takes = {}
    for method in ("lora", "qlora"):
        found = fit("llama-60m", gpus="4090", methods=(method,), batch=1).best.recommended
        assert found is not None
        takes[method] = "no replay of this kind was held against a trace" in found.why[0]
    assert takes == {
        name: not is_compared(workload, find_gpu("4090"))
        for name, workload in {
            name: fit("llama-60m", gpus="4090", methods=(name,), batch=1).best.option.workload  # type: ignore[union-attr]
            for name in takes
        }.items()
    }


def test_a_global_batch_is_gathered_exactly() -> None:
    found = fit("llama-1b", gpus="4090", global_batch=96, seq=1024)
    assert found.best.recommended is not None
    for option in found.best.front:
        batch = option.workload.batch
        assert batch.micro_batch_size * batch.gradient_accumulation_steps == 96
        per_layer = option.workload.method.update == "per-layer" and batch.gradient_accumulation_steps > 1
        assert not per_layer or option.workload.method.parameterisation == "galore"


def test_constraints_hold() -> None:
    wishes = Wishes(
        methods=("galore-adamw", "galore-adamw-8bit"), min_rank=300, checkpointing="none", loss="full", batch=2
    )
    seen = list(options(find_model("llama-1b").shape, wishes, Card(gpu=find_gpu("4090"))))
    assert {option.workload.method.name for option in seen} == {"galore-adamw", "galore-adamw-8bit"}
    assert {option.workload.method.rank for option in seen} == {300, 512, 1024}
    assert {(o.workload.checkpointing, o.workload.loss, o.workload.batch.micro_batch_size) for o in seen} == {
        ("none", "full", 2)
    }


@pytest.mark.parametrize("missing", ["missing_bytes", "least_missing_bytes"])
def test_a_search_for_rank_sees_the_highest_that_fits_of_all_there_are(missing: str) -> None:
    model, wishes, card = find_model("llama-7b").shape, Wishes(objective="rank"), Card(gpu=find_gpu("4090"))

    def highest(found: Iterable[Option]) -> dict[tuple[object, ...], int]:
        ranks: dict[tuple[object, ...], int] = {}
        for option in found:
            method = option.workload.method
            key = method.name, method.update
            if getattr(option, missing) <= 0:
                ranks[key] = max(ranks.get(key, 0), method.rank or 0)
        return ranks

    every = (Form(workload, card).option(workload.batch) for workload in forms(model, wishes, wishes.methods_asked))
    assert highest(options(model, wishes, card)) == highest(every) != {}


def test_cards_are_ranked_for_the_job() -> None:
    """AdamW in full beats its 8-bit sister; of cards that do the same the smaller comes first."""
    found = fit("llama-1b", gpus=["4060", "h100", "3060", "4090"], seq=2048)
    names = [result.card.gpu.name for result in found.cards]
    assert names == ["RTX 4090", "H100 80GB SXM", "RTX 3060 12GB", "RTX 4060"]
    best = found.best.recommended
    assert best is not None
    assert [fitted.gpu.name for fitted in best.fits] == ["RTX 4090", "RTX 4060", "H100 80GB SXM", "RTX 3060 12GB"]


def test_what_is_preferred_is_a_total_order() -> None:
    wishes = Wishes()
    seen = list(options(find_model("llama-60m").shape, wishes, Card(gpu=find_gpu("4090"))))
    assert sorted(seen, key=preference(wishes)) == sorted(reversed(seen), key=preference(wishes))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"gpus": ()}, "add --gpu"),
        ({"min_rank": 0}, "--min-rank 0"),
        ({"batch": 10**20}, "--batch 100000000000000000000 is more than any run has"),
        ({"objective": "speed"}, "--for 'speed'"),
        ({"objective": "batch", "batch": 4}, "leave out --batch"),
        ({"rank": 64, "min_rank": 128}, "below --min-rank"),
        ({"min_rank": 4097}, "--min-rank 4097 is above every rank of llama-60m"),
        ({"global_batch": 10, "batch": 4}, "no multiple"),
        ({"objective": "rank", "methods": ("adamw",)}, "galore-adamw-8bit"),
        ({"methods": ("adam",)}, "adamw"),
        ({"methods": ("galore-adamw",), "target_modules": ("nothing",)}, "matches no linear layer"),
    ],
)
def test_wishes_that_cannot_be(words: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as refused:
        fit("llama-60m", **({"gpus": "4090"} | words))
    assert said in f"{refused.value.what} {refused.value.why} {refused.value.fix}"


@pytest.mark.parametrize(
    ("model", "card", "words", "asked"),
    [
        ("llama-1b", "4060", {"objective": "batch"}, {"loss": "chunked"}),
        ("llama-3.1-8b", "4090", {"objective": "batch"}, {"checkpointing": "full"}),
        ("llama-3-8b", "4090", {}, {"checkpointing": "full"}),
        ("qwen2.5-1.5b", "4060", {}, {"checkpointing": "full"}),
        ("llama-3-8b", "a100-80gb", {"global_batch": 64}, {"batch": 8}),
        ("llama-1b", "4090", {"data_parallel": 4, "global_batch": 64}, {"batch": 8}),
    ],
    ids=str,
)
def test_a_constraint_makes_no_answer_better(
    model: str, card: str, words: dict[str, Any], asked: dict[str, Any]
) -> None:
    """What a search may choose by itself, it does where that comes first in its order."""
    free = fit(model, gpus=card, **words).best.option
    constrained = fit(model, gpus=card, **words, **asked).best.option
    assert free is not None
    assert constrained is not None
    order = preference(Wishes(**words))
    assert order(free)[:6] <= order(constrained)[:6]


def test_the_longest_sequence_is_found_within_a_few_tokens() -> None:
    """What is reserved does not grow evenly with the tokens, and not every length is tried."""
    free = fit("llama-3.2-1b", gpus="4060", objective="sequence").best.option
    constrained = fit("llama-3.2-1b", gpus="4060", objective="sequence", checkpointing="full").best.option
    assert free is not None
    assert constrained is not None
    assert free.batch.sequence_length >= 0.97 * constrained.batch.sequence_length


def test_a_search_for_the_longest_sequence_ends_where_a_tensor_cannot_be_addressed() -> None:
    found = fit("t5-base", gpus="v100-16gb", objective="batch").best.recommended
    assert found is not None
    assert found.to_dict()["fits"][0]["max_sequence_length"] >= found.option.batch.sequence_length
