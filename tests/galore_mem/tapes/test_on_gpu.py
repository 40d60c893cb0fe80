"""Histories recorded here and now, with settings of each kind: the replica must agree with this machine's allocator.

`GALORE_MEM_KEEP_TAPES=folder pytest -m gpu tests/galore_mem/tapes` keeps the recordings as Tapes, to become fixtures.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from estimators.allocator.parse import parse_settings
from galore_mem.answers.histories import History
from galore_mem.answers.limits import Limit
from galore_mem.tapes.file import write_tape
from galore_mem.tapes.recording import read_recording

pytestmark = pytest.mark.gpu

SETTINGS = {
    "defaults": "",
    "expandable": "expandable_segments:True",
    "max_split": "max_split_size_mb:64",
    "max_split_rounding": "max_split_size_mb:64,max_non_split_rounding_mb:40",
    "roundup": "roundup_power2_divisions:4",
    "roundup_intervals": "roundup_power2_divisions:[1:2,16:8,>:1]",
    "fraction": "per_process_memory_fraction:0.05",
    "garbage_collection": "garbage_collection_threshold:0.3,per_process_memory_fraction:0.05",
    "expandable_fraction": "expandable_segments:True,per_process_memory_fraction:0.05",
}
PROGRAM = """
import random, sys
import torch

torch.cuda.memory._record_memory_history(max_entries=1_000_000)
rng, live, side = random.Random(7), [], torch.cuda.Stream()
for step in range(4000):
    if live and rng.random() < 0.5:
        live.pop(rng.randrange(len(live)))
    elif rng.random() < 0.003:
        torch.cuda.empty_cache()
    else:
        size = rng.choice([rng.randint(1, 4096), rng.randint(1, 2 << 20), rng.randint(1 << 20, 60 << 20)])
        try:
            block = torch.empty(size, dtype=torch.uint8, device="cuda")
        except torch.OutOfMemoryError:
            live = live[len(live) // 2 :]
            continue
        if rng.random() < 0.05:
            block.record_stream(side)
        live.append(block)
    if len(live) > 120:
        live = live[60:]
    if step == int(sys.argv[2]):
        torch.cuda.memory._record_memory_history(enabled=None)
        torch.cuda.memory._record_memory_history(max_entries=1_000_000)
torch.cuda.memory._dump_snapshot(sys.argv[1])
print(torch.cuda.get_device_properties(0).total_memory)
"""


@pytest.mark.parametrize("begins", ["at once", "late"])
@pytest.mark.parametrize("name", SETTINGS)
def test_reserved_bytes_are_equal_after_every_event(name: str, begins: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    file = tmp_path / "snapshot.pickle"
    environment = {**os.environ, "PYTORCH_CUDA_ALLOC_CONF": SETTINGS[name]}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(file), "2000" if begins == "late" else "-1"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    total = int(done.stdout)
    tape = read_recording(file)
    if keep := os.environ.get("GALORE_MEM_KEEP_TAPES"):
        write_tape(Path(keep) / f"{name}-{begins.replace(' ', '-')}.tape.json.gz", replace(tape, source="measured"))
    how = parse_settings(SETTINGS[name])
    (device,) = [device for device in tape.devices if len(device.events)]
    assert device.history == ("rebuilt" if begins == "late" else "complete")
    assert device.notes == ()
    limit = Limit(name="this card", capacity_bytes=total, total_bytes=total, reason="all of it")
    run = History(device, how).run(how, limit)
    recorded = list(device.events.reserved_after_causes(device.start_reserved_bytes))
    assert list(run.reserved) == recorded[: len(run.reserved)]
