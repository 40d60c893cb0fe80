"""What `explain` says adds up, and is true of the run it is asked about."""

import sys
from dataclasses import replace
from typing import Any

import pytest

from estimators.analytic.estimate import estimate
from estimators.workload import Batch, Method, Workload
from galore_mem.__main__ import main
from galore_mem.answers.break_even import break_even_rank, inner_method, state_bytes
from galore_mem.answers.differences import difference
from galore_mem.answers.explain import Explanation, explain
from galore_mem.answers.galore_questions import remarks
from galore_mem.answers.settings import Settings
from galore_mem.commands.changed import changed
from galore_mem.errors import UsageError
from profiles.errors import InputError
from profiles.gpus import find_gpu
from profiles.models import find_model

SEVEN = find_model("llama-7b").shape
SMALL = find_model("llama-350m").shape


@pytest.fixture(scope="module")
def seven() -> Explanation:
    return explain("llama-7b", gpu="4090", method="galore-adamw-8bit", update="per-layer")


def test_its_sums_are_the_estimators(seven: Explanation) -> None:
    assert seven.footprint == estimate(seven.workload, find_gpu("4090"))
    sums: dict[str, int] = {}
    for row in seven.at_peak:
        sums[row.category] = sums.get(row.category, 0) + row.live_bytes
    assert sums == dict(seven.footprint.peak.by_category)
    assert seven.to_dict()["layer"]["bytes"] == sum(entry.exact_bytes for entry in seven.ledger)


def test_changes_are_sorted_by_what_they_save(seven: Explanation) -> None:
    saved = [change.saved_bytes for change in seven.changes]
    assert saved == sorted(saved, reverse=True)
    assert seven.changes[0].options == "--rank 512"
    halved = replace(seven.workload, method=replace(seven.workload.method, rank=512))
    assert seven.changes[0].upper_bytes == estimate(halved, find_gpu("4090")).upper_bytes


@pytest.mark.parametrize("name", ["galore-adamw", "galore-adamw-8bit", "galore-adafactor"])
@pytest.mark.parametrize("proj_type", ["std", "reverse_std", "full"])
def test_break_even_is_where_savings_end(name: str, proj_type: Any) -> None:  # noqa: ANN401
    method = Method(name=name, rank=64, proj_type=proj_type)
    for reference in (inner_method(method), Method(name="adamw-8bit")):
        most, even = state_bytes(SMALL, reference), break_even_rank(SMALL, method, reference)
        if even:
            assert state_bytes(SMALL, replace(method, rank=even)) <= most
        if even < SMALL.hidden_size:
            assert state_bytes(SMALL, replace(method, rank=even + 1)) > most
        else:
            assert proj_type != "std" or reference != inner_method(method)


def texts(workload: Workload) -> dict[str, tuple[str, int]]:
    return {remark.topic: (remark.text, remark.nbytes) for remark in remarks(workload, estimate(workload))}


def test_the_questions_about_galore_are_answered_for_the_run() -> None:
    whole = Workload(model=SEVEN, method=Method(name="galore-adamw-8bit", rank=4096))
    said = texts(whole)
    assert "they take less only up to rank" in said["rank"][0]
    assert said["rank"][1] > 0
    assert "--update per-layer takes" in said["update"][0]
    by_layers = replace(whole, method=replace(whole.method, update="per-layer"))
    assert said["update"][1] == estimate(whole).upper_bytes - estimate(by_layers).upper_bytes > 12 * 2**30
    assert "3.9% of the parameters" in said["unmatched"][0]
    assert "views" not in said
    per_layer = texts(replace(whole, method=replace(whole.method, update="per-layer", rank=128)))
    assert "die as they are born" in per_layer["update"][0]
    assert "up to rank" in per_layer["rank"][0]


def test_accumulation_and_clipping_with_per_layer_updates_are_answered() -> None:
    method = Method(name="galore-adamw", rank=128, update="per-layer")
    gathered = Workload(model=SMALL, method=method, batch=Batch(gradient_accumulation_steps=4), clip=True)
    text, nbytes = texts(gathered)["update"]
    assert "over 4 micro-batches their projections are gathered" in text
    assert "no global norm can clip them" in text
    alone = replace(gathered, batch=Batch(), clip=False)
    grown = estimate(gathered).moments[0].by_category["gradients"] - estimate(alone).moments[0].by_category.get(
        "gradients", 0
    )
    assert nbytes == grown > 0


def test_patterns_that_leave_layers_out_are_named() -> None:
    method = Method(name="galore-adamw", rank=128, target_modules=("mlp",))
    text, _ = texts(Workload(model=SMALL, method=method))["unmatched"]
    assert "self_attn.q_proj" in text


def test_views_of_whole_factors_are_counted() -> None:
    method = Method(name="galore-adamw", rank=128, implementation="galore-torch")
    text, nbytes = texts(Workload(model=SMALL, method=method, precision="fp32"))["views"]
    assert "views that keep whole SVD factors alive" in text
    assert nbytes > 0


def test_other_methods_have_no_remarks() -> None:
    assert remarks(Workload(model=SMALL), estimate(Workload(model=SMALL))) == ()


def test_the_steps_of_a_difference_add_up() -> None:
    before = Workload(model=SEVEN, method=Method(name="lora", rank=16))
    name, settings = changed(
        "--method galore-adamw-8bit --rank 512 --update per-layer --checkpointing full --batch 8 --loss chunked",
        "lora",
        Settings(rank=16),
    )
    found = explain("llama-7b", gpu="4090", method="lora", rank=16, other=(name, settings)).difference
    assert found is not None
    assert found.before == estimate(before, find_gpu("4090"))
    assert len(found.steps) == 5
    total = found.after.process_bytes - found.before.process_bytes
    assert sum(step.process_change_bytes for step in found.steps) == total
    for step in found.steps:
        assert sum(step.by_category.values()) + sum(step.beyond_tensors.values()) == step.process_change_bytes
    assert found.steps[0].text == "galore-adamw-8bit r512 instead of lora r16"
    assert found.steps[1].by_category["gradients"] < 0
    assert found.steps[-1].after == found.after


def test_a_change_that_cannot_stand_alone_joins_the_next() -> None:
    """Flash attention exists in half precision only."""
    before = Workload(model=SMALL, precision="fp32", attention="math")
    after = replace(before, precision="bf16", attention="flash")
    found = difference(before, after, find_gpu("4090"))
    assert found.steps[-1].after == found.after == estimate(after, find_gpu("4090"))
    backwards = difference(after, before, find_gpu("4090"))
    assert [step.text.count("instead") for step in backwards.steps] == [2]
    assert backwards.steps[0].after == found.before


def test_equal_runs_differ_in_nothing() -> None:
    workload = Workload(model=SMALL)
    found = difference(workload, workload)
    assert found.steps == ()
    assert found.to_dict()["by_category"] == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it names no option"),
        ("128", "nothing takes '128' here"),
        ("--rank", "--rank needs a value"),
        ("--foo 3", "unknown option: --foo"),
        ("--rank 8 extra", "nothing takes 'extra' here"),
        ("--batch x", 'unable to convert "x" into int'),
        ("--update 'per-layer", "no closing quotation"),
        ("--json", "unknown option: --json"),
    ],
)
def test_a_difference_that_cannot_be_read(text: str, why: str) -> None:
    with pytest.raises(UsageError, match="cannot be read") as caught:
        changed(text, "adamw", Settings())
    assert caught.value.why.startswith(why) or why in caught.value.why
    assert caught.value.fix.startswith("it takes options of a run: --diff ")


def test_a_difference_is_read_as_a_command_line_is() -> None:
    assert changed("--batch=4", "adamw", Settings()) == ("adamw", Settings(batch=4))
    assert changed("--batch=1", "adamw", Settings(batch=8)) == ("adamw", Settings())
    with pytest.raises(InputError, match="--batch -3 is not a positive whole number"):
        changed("--batch -3", "adamw", Settings())


def test_settings_of_another_kind_of_method_are_left_behind() -> None:
    assert changed("--method adamw", "galore-adamw", Settings(rank=8, seq=99)) == ("adamw", Settings(seq=99))
    assert changed("--method galore-adamw-8bit", "galore-adamw", Settings(rank=8))[1].rank == 8
    with pytest.raises(InputError):
        changed("--batch 0", "adamw", Settings())


@pytest.mark.parametrize("words", [{"method": "lora", "autocast": True}, {"precision": "amp-bf16"}], ids=str)
def test_a_layers_tensors_are_called_by_their_place_in_it(words: dict[str, Any]) -> None:
    names = [entry.name for entry in explain("llama-60m", **words).ledger]
    assert not [name for name in names if ".*." in name]
    assert any(name.startswith("mlp.gate_proj.") and name.endswith("autocast copy") for name in names)
    assert len(set(names)) == len(names) - 1  # two random states of attention


def test_a_run_against_itself_is_said_to_be_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["explain", "llama-60m", "--method", "adamw", "--diff", "--method adamw"]
    monkeypatch.setattr(sys, "argv", ["galore-mem", *words])
    assert main() == 0
    out = capsys.readouterr().out
    assert out.endswith("\n\nNo setting differs: it is the same run.\n")
