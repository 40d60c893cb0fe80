"""What a report computes, against the replica of the allocator and against sums made by hand."""

from array import array
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galore_mem.answers.replay import replay_tape
from galore_mem.answers.report.answer import report, report_of
from galore_mem.answers.report.lives import Lives
from galore_mem.answers.report.run import RunReport, run_report
from galore_mem.answers.report.spans import Span, fewer
from galore_mem.answers.report.timeline import points_kept
from galore_mem.render.report.data import page_data
from galore_mem.render.report.embed import json_in_html
from galore_mem.tapes.recording import read_recording
from profiles.errors import InputError
from tests.galore_mem.answers.made_runs import MIB, made_run

RECORDED = sorted((Path(__file__).resolve().parents[2] / "fixtures" / "recorded").glob("*.tape.json.gz"))


@pytest.fixture(scope="module")
def made() -> RunReport:
    return run_report(made_run(), "made")


def test_the_peak_is_the_step_of_the_first_iteration_and_is_named(made: RunReport) -> None:
    # weights, gradients, states and the temporary of all layers: 15 + 15 + 30 + 15 MiB a layer
    assert made.peak.live_bytes == 4 * 75 * MIB
    assert made.peak.label == "steady step"
    assert made.peak.by_category == {
        "weights": 60 * MIB,
        "gradients": 60 * MIB,
        "optimizer_states": 120 * MIB,
        "temporaries": 60 * MIB,
    }
    assert made.runner_up is not None
    assert made.runner_up.name == "backward"


def test_tensors_tree_and_layers_of_the_peak_add_up(made: RunReport) -> None:
    alive = made.alive
    assert sum(tensor.nbytes for tensor in alive.tensors) + alive.others_bytes == made.peak.live_bytes
    assert sum(alive.by_category.values()) == made.peak.live_bytes
    for tree in (alive.modules, alive.layer_tree):
        assert tree[0].nbytes == made.peak.live_bytes
        for position, node in enumerate(tree[1:], 1):
            assert 0 <= node.parent < position
        for position, node in enumerate(tree):
            children = [child.nbytes for child in tree if child.parent == position]
            assert not children or sum(children) == node.nbytes
    assert list(alive.layers) == ["outside the layers", "0", "1", "2", "3"]
    assert alive.layers["2"] == {"weights": 15 * MIB, "gradients": 15 * MIB, "optimizer_states": 30 * MIB}
    assert sum(sum(row.values()) for row in alive.layers.values()) == made.peak.live_bytes


def test_a_tensor_is_told_with_its_birth_and_death(made: RunReport) -> None:
    state = next(tensor for tensor in made.alive.tensors if tensor.module == "model.layers.3.mlp.weight, exp_avg_sq")
    assert (state.nbytes, state.category, state.operator, state.death) == (
        15 * MIB,
        "optimizer_states",
        "zeros_like",
        None,
    )
    temporary = next(tensor for tensor in made.alive.tensors if tensor.operator == "_foreach_sqrt")
    assert temporary.birth == made.peak.event
    assert temporary.death == made.peak.event + 1


def test_step_times_come_from_the_events(made: RunReport) -> None:
    assert [step.name for step in made.steps] == ["first", "steady", "steady"]
    # forward begins with its first allocation and ends with the loss's: 4 events of 1 ms
    assert made.steps[1].seconds["forward"] == pytest.approx(0.004)
    assert made.steps[1].seconds["backward"] == pytest.approx(0.021)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name.partition(".")[0])
def test_a_recording_is_drawn_as_it_is_replayed(path: Path) -> None:
    tape = read_recording(path)
    run = run_report(tape, path.name)
    (replayed,) = replay_tape(tape).devices
    series = replayed.replayed.series
    line = run.timeline
    assert run.figures.reserved_bytes == replayed.replayed.peak_reserved_bytes == max(line.reserved)
    assert run.figures.allocated_bytes == replayed.replayed.peak_allocated_bytes
    sums = [sum(values) for values in zip(*line.by_category.values(), strict=True)]
    assert sums == [series.live[event] for event in line.event]
    assert list(line.allocated) == [series.allocated[event] for event in line.event]
    assert sum(segment.nbytes for segment in run.segments) == run.figures.reserved_bytes
    for segment in run.segments:
        assert sum(piece.nbytes for piece in segment.pieces) == segment.nbytes


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=400), st.integers(8, 60))
def test_no_peak_is_lost_in_thinning(values: list[tuple[int, int]], most: int) -> None:
    allocated = array("q", (value for value, _ in values))
    reserved = array("q", (value + more for value, more in values))
    kept = points_kept(allocated, reserved, (), most)
    assert kept == sorted(set(kept))
    assert len(kept) <= max(most + 8, len(values) if len(values) <= most else 0)
    assert (kept[0], kept[-1]) == (0, len(values) - 1)
    for series in (allocated, reserved):
        assert max(series[event] for event in kept) == max(series)
    if len(values) > most:
        width = -(-len(values) * 4 // most)
        for start in range(0, len(values), width):
            inside = [event for event in kept if start <= event < start + width]
            bucket = allocated[start : start + width]
            assert max(allocated[event] for event in inside) == max(bucket)
            assert min(allocated[event] for event in inside) == min(bucket)


def test_the_peak_of_every_span_is_kept() -> None:
    allocated = array("q", [0] * 1000)
    allocated[500], allocated[503] = 9, 7
    kept = points_kept(allocated, allocated, [Span(name="step", start=501, stop=505)], 16)
    assert {500, 503} <= set(kept)


def test_a_long_run_is_thinned_with_all_its_peaks() -> None:
    run = run_report(made_run(layers=24, steps=110), "long")
    line = run.timeline
    assert run.lives.events > 20_000
    assert line.is_thinned
    assert len(line.event) < run.lives.events
    assert len(json_in_html(page_data([run]))) < 2_000_000  # with plotly's 4.8 MB far from 8
    series = run.replay.replayed.series
    for phase in run.phases:
        inside = [line.allocated[i] for i, event in enumerate(line.event) if phase.start <= event < phase.stop]
        assert max(inside) == max(series.allocated[phase.start : phase.stop])


def test_short_phases_are_joined_for_drawing_only() -> None:
    run = run_report(made_run(layers=1, steps=60), "many")
    assert len(run.phases) > 100
    drawn = fewer(run.phases, 40)
    assert len(drawn) <= 40
    assert (drawn[0].start, drawn[-1].stop) == (0, run.lives.events)
    assert all(one.stop == other.start for one, other in pairwise(drawn))
    assert run.peak.label == "steady step"


def test_two_runs_are_compared_figure_by_figure() -> None:
    found = report_of([("a", made_run()), ("b", made_run(layers=5))])
    assert found.differences is not None
    live = found.differences.peaks[0]
    assert (live.name, live.expected_bytes, live.found_bytes) == ("live", 300 * MIB, 375 * MIB)
    rows = {row.name: row.difference_bytes for row in found.differences.layers}
    assert rows == {"layer 4": 60 * MIB, "outside the layers": 15 * MIB}


def test_a_workload_in_the_tape_brings_the_closed_form_beside_it() -> None:
    workload = {
        "model": "llama-60m",
        "method": {"name": "adamw", "target_modules": []},
        "precision": "bf16",
        "batch": {"micro_batch_size": 1, "sequence_length": 64, "gradient_accumulation_steps": 1},
    }
    run = run_report(made_run(metadata={"workload": workload}), "made")
    assert run.expectation is not None
    assert {row.name for row in run.expectation.moments} >= {"first forward", "steady step", "steady backward"}
    hostile = {"model": ["llama-60m"], "method": 3, "batch": {"micro_batch_size": "x"}}
    assert run_report(made_run(metadata={"workload": hostile}), "made").expectation is None


def test_what_the_driver_counted_takes_the_place_of_the_contexts_range() -> None:
    plain = run_report(made_run(), "made").figures
    assert plain.context_low_bytes < plain.context_high_bytes
    counted = plain.reserved_bytes + 300 * MIB
    measured = run_report(made_run(metadata={"process_bytes": counted}), "made").figures
    assert (measured.process_bytes, measured.upper_bytes) == (counted, counted)
    for nonsense in (-1, 5, "x", 1 << 60, 1.5, True):
        assert run_report(made_run(metadata={"process_bytes": nonsense}), "made").figures == plain


def test_lives_of_a_history_that_began_late() -> None:
    late = next(path for path in RECORDED if "lm_forward" in path.name)
    (device,) = read_recording(late).devices
    lives = Lives(device)
    held = sum(len(segment.blocks) for segment in device.initial)
    assert list(lives.birth[:held]) == [-1] * held
    assert len(lives.at_event) == len(device.events.causes())
    assert run_report(read_recording(late), "late").is_overflowed


def test_bad_questions_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one file or two"):
        report([])
    with pytest.raises(InputError, match="no device 7"):
        run_report(made_run(), "made", device=7)
