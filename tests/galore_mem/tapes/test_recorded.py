"""Histories recorded on real GPUs: the replica must hold the same reserved bytes after every event."""

from pathlib import Path

import pytest

from estimators.allocator.replay import replay
from galore_mem.answers.histories import placed_segment
from galore_mem.answers.replay import replay_tape
from galore_mem.tapes.recording import read_recording

FOLDER = Path(__file__).parents[2] / "fixtures" / "recorded"
FILES = sorted(FOLDER.glob("*.tape.json.gz"))


def test_all_are_there() -> None:
    assert len(FILES) == 5


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.split(".")[0])
def test_reserved_bytes_are_equal_after_every_event(file: Path) -> None:
    tape = read_recording(file)
    (device,) = tape.devices
    run = replay(device.events.causes(), initial=[placed_segment(segment) for segment in device.initial])
    assert run.oom is None
    assert list(run.series.reserved) == list(device.events.reserved_after_causes(device.start_reserved_bytes))
    assert run.peak_reserved_bytes == tape.metadata["recorded_peak_reserved_bytes"]
    assert run.end_reserved_bytes == tape.metadata["recorded_end_reserved_bytes"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.split(".")[0])
def test_origin_and_licence_are_named(file: Path) -> None:
    metadata = read_recording(file).metadata
    assert metadata["licence"] in ("MIT", "Apache-2.0")
    assert metadata["derived_from"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.split(".")[0])
def test_the_answer_agrees_and_other_settings_differ(file: Path) -> None:
    (device,) = replay_tape(read_recording(file)).devices
    assert device.first_difference is None
    assert device.recorded_peak_bytes == device.replayed.peak_reserved_bytes
    assert len({row.peak_reserved_bytes for row in device.what_ifs}) > 1
