"""What a replay answers, apart from how it is drawn."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from estimators.allocator.replay import Event, replay
from galore_mem.answers.limits import limit_of
from galore_mem.answers.names import Card, resolve_cards
from galore_mem.answers.replay import replay_tape
from galore_mem.commands.app import call
from galore_mem.render.replay import replay_dict
from galore_mem.tapes.recording import read_recording, recording_from_bytes
from galore_mem.tapes.tape import Tape
from profiles.errors import InputError
from profiles.gpus import find_gpu
from tests.galore_mem.tapes import snapshots
from tests.galore_mem.tapes.snapshots import MIB

RECORDED = Path(__file__).resolve().parents[2] / "fixtures" / "recorded"
GIB = 1 << 30


def recorded(name: str) -> Tape:
    return read_recording(RECORDED / f"{name}.tape.json.gz")


def read(made: object) -> Tape:
    return recording_from_bytes(pickle.dumps(made, protocol=4))


def test_a_cards_limit_leaves_room_for_context_and_others() -> None:
    gpu = find_gpu("4090")
    limit = limit_of(Card(gpu=gpu, other_use_bytes=GIB))
    assert limit.capacity_bytes == gpu.usable_bytes - GIB - gpu.context_high_bytes
    assert limit.total_bytes == gpu.usable_bytes


def test_other_settings_save_a_run_that_ran_out() -> None:
    cards = resolve_cards(["t4"], round(1.3 * GIB))
    (device,) = replay_tape(recorded("lm_training_425m"), cards=cards).devices
    as_recorded = device.what_ifs[0]
    assert as_recorded.oom is not None
    assert as_recorded.oom.is_fragmentation
    assert device.replayed.oom == as_recorded.oom
    outcome = {row.settings: row.oom for row in device.what_ifs if row.start_anew}
    assert outcome["expandable_segments:True"] is None
    assert "" in outcome, "its own settings from the same start stand beside, to compare with"
    assert device.first_difference is None, "up to there the replay is the recording"


def test_settings_asked_for_are_replayed_and_stand_in_the_table() -> None:
    answer = replay_tape(recorded("decomfl"), alloc_conf="expandable_segments:True")
    (device,) = answer.devices
    assert answer.settings == "expandable_segments:True"
    assert device.replayed.peak_reserved_bytes < (device.recorded_peak_bytes or 0)
    assert device.first_difference == 0, "the first event maps pages instead of taking a segment"
    assert [row.settings for row in device.what_ifs][:2] == ["", "expandable_segments:True"]
    assert len({row.settings for row in device.what_ifs}) == len(device.what_ifs)
    assert not any(row.start_anew for row in device.what_ifs)
    with pytest.raises(InputError, match="did you mean"):
        replay_tape(recorded("decomfl"), alloc_conf="expandable_segment:True")


def test_without_a_card_the_smallest_that_fits_is_named() -> None:
    (device,) = replay_tape(recorded("lm_training_425m")).devices
    row = device.what_ifs[0]
    assert row.smallest_card is not None
    assert limit_of(Card(gpu=find_gpu(row.smallest_card))).capacity_bytes >= row.peak_reserved_bytes


def test_a_larger_card_needs_no_second_run_and_a_smaller_one_gets_it() -> None:
    cards = resolve_cards(["4090", "h100"])
    (device,) = replay_tape(recorded("decomfl"), cards=cards).devices
    assert [row.limit.name for row in device.what_ifs[:2] if row.limit] == [card.gpu.name for card in cards]
    assert device.what_ifs[0].peak_reserved_bytes == device.what_ifs[1].peak_reserved_bytes


def test_a_history_that_began_late_is_laid_anew_for_other_settings() -> None:
    events = snapshots.program(seed=21, length=300)
    late = snapshots.started_late(snapshots.snapshot(events), 200)
    (device,) = replay_tape(read(late)).devices
    assert device.first_difference is None
    assert any("began late" in note for note in device.notes)
    own, again, *others = device.what_ifs
    assert own.peak_reserved_bytes == device.recorded_peak_bytes
    assert (own.start_anew, again.start_anew, own.settings) == (False, True, again.settings)
    assert all(row.start_anew for row in others)
    assert all(row.peak_allocated_bytes >= device.replayed.peak_live_bytes for row in device.what_ifs)


def test_a_start_that_the_card_has_no_room_for_is_laid_anew() -> None:
    events = snapshots.program(seed=21, length=300)
    late = snapshots.started_late(snapshots.snapshot(events), 200)
    tape = read(late)
    start = tape.devices[0].start_reserved_bytes
    gpu = find_gpu("4090")
    other_use = gpu.usable_bytes - gpu.context_high_bytes - start // 2
    (device,) = replay_tape(tape, cards=[Card(gpu=gpu, other_use_bytes=other_use)]).devices
    assert device.replayed.oom is not None
    assert device.replayed.oom.reserved_bytes <= start // 2


def test_no_row_stands_twice_where_the_start_has_no_room() -> None:
    cards = resolve_cards(["t4", "4090"], int(1.34 * GIB))
    (device,) = replay_tape(recorded("lm_training_425m"), cards=cards).devices
    own = [(row.start_anew, row.limit and row.limit.name) for row in device.what_ifs if row.is_recorded]
    assert own == [(True, "T4"), (False, "RTX 4090"), (True, "RTX 4090")]
    assert all(device.what_ifs.count(row) == 1 for row in device.what_ifs)


def test_a_memory_fraction_needs_a_total() -> None:
    tape = recorded("decomfl")
    (device,) = replay_tape(tape, alloc_conf="per_process_memory_fraction:0.05").devices
    assert device.replayed.oom is None, "without a card there is nothing to take a share of"
    cards = resolve_cards(["4090"])
    (device,) = replay_tape(tape, alloc_conf="per_process_memory_fraction:0.05", cards=cards).devices
    assert device.replayed.oom is not None
    assert device.replayed.oom.limit_bytes == int(0.05 * cards[0].gpu.usable_bytes)


def test_settings_that_cannot_be_used_are_named_and_not_fatal() -> None:
    made = snapshots.snapshot(snapshots.program(seed=22))
    for text, says in (("brand_new_key:1", "could not be used"), ("backend:cudaMallocAsync", "cudaMallocAsync")):
        made["allocator_settings"] = {"PYTORCH_CUDA_ALLOC_CONF": text}
        (device,) = replay_tape(read(made)).devices
        assert says in device.notes[0]
        assert device.first_difference is None


def test_a_trace_without_an_allocator_has_nothing_to_compare_with() -> None:
    events = snapshots.program(seed=23)
    answer = replay_dict(replay_tape(snapshots.tape_of(events)))
    (device,) = answer["devices"]
    assert device["recorded"] is None
    assert device["first_difference"] is None
    assert device["replayed"]["peak_reserved_bytes"] == replay(events).peak_reserved_bytes


def test_the_first_difference_is_named() -> None:
    events: list[Event] = [("alloc", n, 3 * MIB, 0, 0) for n in range(30)]
    made = snapshots.snapshot(events)
    trace = made["device_traces"][0]
    grown = [row for row, entry in enumerate(trace) if entry["action"] == "segment_alloc"]
    trace[grown[2]]["size"] += 2 * MIB
    made["segments"] = []
    (device,) = replay_tape(read(made)).devices
    position = sum(entry["action"] == "alloc" for entry in trace[: grown[2]])
    assert device.first_difference == position


def test_json_is_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["replay", str(RECORDED / "toy_step.tape.json.gz"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "galore-mem/replay/1"
    (device,) = answer["devices"]
    assert device["recorded"] == {"peak_reserved_bytes": 3781165056, "end_reserved_bytes": 3781165056}
    assert device["replayed"]["peak_reserved_bytes"] == 3781165056
    assert device["replayed"]["oom"] is None
    assert device["events"] == 62
    assert device["device"] == 0


def test_recorders_can_import_tapes_without_the_neighbours() -> None:
    """What a training script imports sees neither theory nor facts, nor anything heavy."""
    rooms = "tape, table, file, snapshot, recording, memory_viz"
    code = f"import sys; from galore_mem.tapes import {rooms}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=RECORDED.parents[2], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded & {"estimators", "profiles", "torch", "rich", "cyclopts", "numpy"} == set()
