"""Snapshots of runs that were not ours: categories by rule, against the run they were made from."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from estimators.allocator.parse import parse_settings
from estimators.allocator.placed import place
from galore_mem.answers.histories import held_segment
from galore_mem.answers.report.answer import report
from galore_mem.answers.report.rules import read_rules
from galore_mem.answers.report.run import RunReport, run_report
from galore_mem.errors import UsageError
from galore_mem.tapes.memory_viz import Placement, snapshot_dict
from galore_mem.tapes.snapshot import tape_from_snapshot
from galore_mem.tapes.table import EventTable
from galore_mem.tapes.tape import DeviceTape, Tape
from profiles.errors import InputError
from profiles.gpus import LARGE_WORKSPACE_BYTES
from tests.galore_mem.answers.made_runs import MIB, made_run
from tests.galore_mem.answers.made_snapshots import snapshot_of

LAYERS, STEPS = 6, 4
LOGITS = 6 * MIB


def drawn(**options: Any) -> RunReport:  # noqa: ANN401
    return run_report(tape_from_snapshot(snapshot_of(made_run(layers=LAYERS, steps=STEPS), **options)), "theirs")


@pytest.fixture(scope="module")
def ours() -> RunReport:
    return run_report(made_run(layers=LAYERS, steps=STEPS), "ours")


def without_logits(by_category: dict[str, int]) -> dict[str, int]:
    """Nothing in a snapshot tells logits from other activations."""
    found = {name: nbytes for name, nbytes in by_category.items() if nbytes and name != "logits"}
    found["activations"] = found.get("activations", 0) + by_category.get("logits", 0)
    return {name: nbytes for name, nbytes in found.items() if nbytes}


@pytest.mark.parametrize("backward_has_stacks", [True, False])
@pytest.mark.parametrize("with_annotations", [True, False])
def test_stacks_tell_every_category(ours: RunReport, backward_has_stacks: bool, with_annotations: bool) -> None:
    theirs = drawn(backward_has_stacks=backward_has_stacks, with_annotations=with_annotations)
    assert theirs.categories_by_rule
    assert theirs.peak.live_bytes == ours.peak.live_bytes
    assert without_logits(dict(theirs.peak.by_category)) == without_logits(dict(ours.peak.by_category))
    found = {moment.label: without_logits(dict(moment.by_category)) for moment in theirs.moments}
    expected = {moment.label: without_logits(dict(moment.by_category)) for moment in ours.moments}
    for label in ("steady forward", "steady backward", "steady step"):
        assert found[label] == expected[label], label
    assert [span.name for span in theirs.iterations] == [f"step {number}" for number in range(1, STEPS + 1)]


def test_annotations_alone_tell_states_weights_and_the_step() -> None:
    theirs = drawn(with_stacks=False)
    by_category = theirs.peak.by_category
    assert by_category["weights"] == LAYERS * 15 * MIB
    assert by_category["optimizer_states"] == LAYERS * 30 * MIB
    assert by_category["temporaries"] == LAYERS * 15 * MIB
    assert {span.name for span in theirs.phases} == {"between", "step"}
    assert len(theirs.steps) == STEPS


def test_without_anything_it_is_still_drawn_and_says_what_it_does_not_know() -> None:
    theirs = drawn(with_stacks=False, with_annotations=False)
    assert theirs.figures.live_bytes == LAYERS * 75 * MIB
    assert sum(theirs.alive.by_category.values()) == theirs.figures.live_bytes


def test_the_programs_own_functions_are_the_tree() -> None:
    theirs = drawn()
    labels = {node.label for node in theirs.alive.modules}
    assert {"main.py:83 main", "main.py:20 main"} <= labels
    forward = {theirs.lives.text("module", number) for number in range(len(theirs.lives))}
    assert "main.py main > model.py forward" in forward


def test_a_history_whose_beginning_fell_out_of_the_buffer_is_marked(ours: RunReport) -> None:
    theirs = drawn(entries=120)
    assert theirs.is_overflowed
    assert theirs.figures.reserved_bytes == ours.figures.reserved_bytes


def test_an_out_of_memory_is_the_verdict() -> None:
    theirs = drawn(refused=(900 * MIB, 100 * MIB))
    verdict = theirs.verdicts[0]
    assert verdict.kind == "out-of-memory"
    oom = theirs.replay.replayed.oom
    assert oom is not None
    assert oom.requested_bytes == 900 * MIB
    assert theirs.figures.live_bytes == LAYERS * 75 * MIB  # the refused tensor never lived


def test_rules_of_ones_own_go_first(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\ncategory = "logits"\noperator = \'model\\.py:60\'\nat_least = "1MiB"\n'
        '[[rule]]\ncategory = "workspaces"\nphase = "step"\nat_most = 15728640\n'
    )
    snapshot = tmp_path / "run.pickle"
    snapshot.write_bytes(pickle.dumps(snapshot_of(made_run(layers=2)), protocol=4))
    (run,) = report([snapshot], categories=rules).runs
    assert run.peak.by_category["workspaces"] == 2 * 2 * 15 * MIB
    assert "optimizer_states" not in run.peak.by_category
    assert any(moment.by_category.get("logits") == LOGITS for moment in run.moments)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no rules"),
        ("[[rule]\n", "is not TOML"),
        ('[[rule]]\ncategory = "weights"\n', "matches everything"),
        ('[[rule]]\ncategory = "wheels"\ntag = "x"\n', "category 'wheels'"),
        ('[[rule]]\ncategory = "weights"\nframe = "x"\n', "key 'frame'"),
        ('[[rule]]\ncategory = "weights"\ntag = "("\n', "no regular expression"),
        ('[[rule]]\ncategory = "weights"\ntag = 3\n', "no regular expression"),
        ('[[rule]]\ncategory = "weights"\nat_least = -1\n', "at_least of rule 1"),
        ('[[rule]]\ncategory = "weights"\nat_least = nan\n', "at_least of rule 1"),
        ('[[rule]]\ncategory = "weights"\nat_least = "much"\n', "is not a size"),
    ],
)
def test_rules_that_mean_nothing_are_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises((UsageError, InputError), match=says) as caught:
        read_rules(path)
    assert "\n" not in str(caught.value).strip()


def test_a_file_of_rules_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_rules(tmp_path / "none.toml")


def test_weights_as_large_as_a_workspace_stay_weights() -> None:
    table = EventTable()
    for block in range(1, 41):
        table.append("alloc", block, LARGE_WORKSPACE_BYTES)
    for block in range(41, 61):
        table.append("alloc", block, 3 * MIB)
        table.append("free", block, 0)
    found = run_report(Tape(devices=(DeviceTape(events=table),), source="snapshot"), "theirs")
    assert found.alive.by_category["weights"] == 40 * LARGE_WORKSPACE_BYTES
    assert "workspaces" not in found.alive.by_category


def test_a_snapshot_that_we_wrote_keeps_what_is_known_of_its_blocks(ours: RunReport) -> None:
    run = made_run(layers=LAYERS, steps=STEPS)
    (device,) = run.devices
    events, segments = place(device.events.causes(), parse_settings(""))
    snapshot = snapshot_dict(run, [Placement(events=events, segments=tuple(map(held_segment, segments)))])
    theirs = run_report(tape_from_snapshot(snapshot), "written")
    assert not theirs.categories_by_rule
    assert theirs.peak.by_category == ours.peak.by_category
    assert {tensor.module for tensor in theirs.alive.tensors} == {tensor.module for tensor in ours.alive.tensors}
    assert {tensor.operator for tensor in theirs.alive.tensors} == {tensor.operator for tensor in ours.alive.tensors}
    assert {span.name for span in theirs.phases} == {span.name for span in ours.phases}
