"""Snapshots are read piece by piece: the answer of the unpickled whole, in a bounded multiple of the file's size."""

import gzip
import pickle
import pickletools
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.allocator.parse import parse_settings
from galore_mem.answers.snapshot import write_predicted
from galore_mem.tapes.file import tape_bytes
from galore_mem.tapes.recording import read_recording, recording_from_bytes
from galore_mem.tapes.snapshot import tape_from_snapshot
from tests.galore_mem.answers.made_runs import made_run
from tests.galore_mem.answers.made_snapshots import snapshot_of
from tests.galore_mem.answers.streamed_snapshots import write_snapshot
from tests.galore_mem.tapes import snapshots

ROOT = Path(__file__).parents[3]
RECORDED = sorted((ROOT / "tests/fixtures/recorded").glob("*.tape.json.gz"))
MULTIPLE = {"without stacks": 5, "with stacks": 3}
"""Of a snapshot's size, the memory that reading and drawing it may take; docs/report.md states it."""


def agrees(data: bytes) -> None:
    """The file gives the Tape that its content gives when Python has unpickled all of it."""
    assert tape_bytes(recording_from_bytes(data)) == tape_bytes(tape_from_snapshot(pickle.loads(data)))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    era=st.sampled_from(list(snapshots.ERAS)),
    protocol=st.integers(2, 5),
    text=st.sampled_from(["", "expandable_segments:True"]),
    share=st.floats(0, 1),
)
def test_any_snapshot_gives_what_its_content_gives(seed: int, era: str, protocol: int, text: str, share: float) -> None:
    rng = Random(seed)
    events = snapshots.program(seed, length=rng.randint(1, 300), streams=(0, 7, 1 << 46))
    made = snapshots.ERAS[era](snapshots.snapshot(events, parse_settings(text)))
    late = snapshots.started_late(made, int(share * len(made["device_traces"][0])))
    _vary(late, rng)
    data = pickle.dumps(late, protocol=protocol)
    agrees(data)
    agrees(pickletools.optimize(data))


def _vary(made: dict[str, Any], rng: Random) -> None:
    """Entries in other shapes than torch's usual one, tags and keys of later releases among them."""
    for trace in made["device_traces"]:
        for entry in trace:
            draw = rng.random()
            if draw < 0.1:
                entry["user_metadata"] = rng.choice(["step", "é" * 100, "N/A", ""])
            elif draw < 0.2:
                entry["compile_context"] = rng.choice(["0/0", "1/2", "N/A"])
            elif draw < 0.25:
                entry.pop("frames", None)
            elif draw < 0.3:
                entry["frames"] = [dict(frame) for frame in entry.get("frames", [])] * rng.randint(0, 3)
            elif draw < 0.35:
                entry["of_a_later_release"] = rng.choice([1, -1, 1 << 40, None, True, "text", [], 0.5, {"a": [1]}])
            elif draw < 0.4:
                items = list(entry.items())
                rng.shuffle(items)
                entry.clear()
                entry.update(items)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name.partition(".")[0])
def test_recorded_histories_give_what_their_content_gives(path: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot.pickle"
    write_predicted(snapshot, read_recording(path))
    agrees(snapshot.read_bytes())


@pytest.mark.parametrize(
    "options",
    [{}, {"with_stacks": False}, {"backward_has_stacks": False}, {"entries": 500}, {"refused": (1 << 30, 1 << 20)}],
    ids=str,
)
def test_made_up_runs_give_what_their_content_gives(options: dict[str, Any]) -> None:
    data = pickle.dumps(snapshot_of(made_run(layers=8, steps=12), **options), protocol=4)
    agrees(data)
    assert tape_bytes(recording_from_bytes(gzip.compress(data))) == tape_bytes(recording_from_bytes(data))


@pytest.mark.parametrize("depth", [0, 60, 2_000])
def test_deep_stacks_and_frames_of_the_pickle_in_the_middle_of_events(depth: int, tmp_path: Path) -> None:
    path = tmp_path / "snapshot.pickle"
    entries = write_snapshot(path, events=5_000, depth=depth, layers=8)
    content = pickle.loads(path.read_bytes())
    assert len(content["device_traces"][0]) == entries
    agrees(path.read_bytes())


_MEASURE = """
import sys
from galore_mem.answers.report.answer import report
from galore_mem.render.report.page import page_html

def draw(path):
    page_html(report([path]))
    status = open("/proc/self/status").read()  # ru_maxrss of a child begins at its parent's
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

before = draw(sys.argv[1])
print(draw(sys.argv[2]) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel does not say what a process peaked at")
@pytest.mark.parametrize(("kind", "depth", "events"), [("without stacks", 0, 150_000), ("with stacks", 100, 100_000)])
def test_memory_is_a_bounded_multiple_of_the_file(kind: str, depth: int, events: int, tmp_path: Path) -> None:
    """Beyond what a file takes that is large enough for a page's every part; in a process of its own."""
    small, large = tmp_path / "small.pickle", tmp_path / "large.pickle"
    write_snapshot(small, events=25_000, depth=depth, layers=8)
    write_snapshot(large, events=events, depth=depth, layers=8)
    command = [sys.executable, "-P", "-c", _MEASURE, str(small), str(large)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    more = large.stat().st_size - small.stat().st_size
    assert more > 3_000_000
    assert int(done.stdout) < MULTIPLE[kind] * more
