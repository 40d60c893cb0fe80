"""What hooks tell of a history without names, against the recorder that saw every operator of the same step."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from estimators.workload import Workload

pytest.importorskip("torch")
pytest.importorskip("transformers")

from galore_mem.profiler.attribution import UNATTRIBUTED, Sizes, annotated, attribute
from galore_mem.profiler.recording import Recording, peaks_of
from galore_mem.tapes.snapshot import tape_from_snapshot
from galore_mem.witness import HOST

Small = Callable[..., Workload]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

SEQ = 48
LOGITS = frozenset({SEQ * 500 * 2, SEQ * 500 * 4})
RUNS: list[tuple[str, dict[str, Any]]] = [
    ("adamw", {"checkpointing": "full"}),
    ("adamw-8bit", {"update": "per-layer", "family": "qwen3"}),
    ("sgd", {"grad_accumulation": 2, "family": "tied"}),
    ("galore-adamw-8bit", {"update": "per-layer"}),
    ("lora", {"precision": "amp-bf16"}),
]
WRONG_CATEGORY_PCT = 0.1
"""Integer tensors of a few bytes: hooks do not see that they are no activations."""
RECOMPUTED_SUM = (SEQ * 128 * 2, "temporaries", "activations")
"""A recomputed layer's last sum is made by the layer's own code, after its last module and before any backward."""
WRONG_MODULE_PCT = 6.0
"""Between two saved tensors of a backward, hooks do not see that the module changed."""


def rows_of(recording: Recording) -> list[tuple[Any, ...]]:
    """(bytes, category, module, window, iteration, born) of each event on the device."""
    lives = recording.lives
    rows = []
    for begin, end, iteration, window in recording.stretches():
        for code in recording.events[begin:end]:
            life = lives[abs(code) - 1]
            if life.category != HOST:
                rows.append((life.nbytes, life.category, life.module, window, iteration, code > 0))
    return rows


@pytest.fixture
def watched(small: Small) -> Callable[..., Any]:
    def run(method: str, **settings: Any) -> Any:  # noqa: ANN401
        from importlib.util import module_from_spec, spec_from_file_location
        from pathlib import Path

        spec = spec_from_file_location("watched_both_ways", Path(__file__).with_name("both.py"))
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        import sys

        sys.modules["watched_both_ways"] = module
        spec.loader.exec_module(module)
        return module.watch(small(method, seq=SEQ, layers=3, **settings), "flash")

    return run


@pytest.mark.parametrize(("method", "settings"), RUNS)
def test_hooks_tell_what_the_recorder_saw(watched: Callable[..., Any], method: str, settings: dict[str, Any]) -> None:
    seen = watched(method, **settings)
    (device,) = tape_from_snapshot(seen.snapshot).devices
    entries = seen.snapshot["device_traces"][0]
    sizes = Sizes(
        logits=LOGITS, shared_gradients=frozenset({500 * 128 * 2} if settings.get("family") == "tied" else ())
    )
    found = attribute(entries, device, seen.stamps, events_seen=seen.events_seen, sizes=sizes)
    expected, got = rows_of(seen.recording), rows_of(found)
    assert [(row[0], *row[4:]) for row in got] == [(row[0], *row[4:]) for row in expected]
    late = sum(mine[3] != theirs[3] for mine, theirs in zip(got, expected, strict=True))
    assert late <= 0.002 * len(got)  # a layer's backward begins, for hooks, with the first tensor it takes up again
    wrong: Counter[str] = Counter()
    recomputed = 0
    for mine, theirs in zip(got, expected, strict=True):
        if mine[-1]:
            wrong["all"] += mine[0]
            if (*mine[:2], theirs[1]) == RECOMPUTED_SUM:
                recomputed += 1
                continue
            wrong["category"] += mine[0] * (mine[1] != theirs[1])
            wrong["module"] += mine[0] * (mine[2] != theirs[2])
    assert 100 * wrong["category"] / wrong["all"] < WRONG_CATEGORY_PCT
    assert recomputed == (2 * 3 if settings.get("checkpointing") == "full" else 0)  # iterations, layers
    if settings.get("checkpointing") != "full":  # hooks see a recomputed layer as one
        assert 100 * wrong["module"] / wrong["all"] < WRONG_MODULE_PCT
    top = max(peaks_of(found), key=lambda peak: peak.live_bytes)
    assert top.by_category.get(UNATTRIBUTED, 0) < 0.01 * top.live_bytes
    same = max(peaks_of(seen.recording), key=lambda peak: peak.live_bytes)
    assert (top.iteration, top.window, top.live_bytes) == (same.iteration, same.window, same.live_bytes)


def test_a_history_that_lost_its_beginning_is_laid_beside_the_stamps_from_its_end(watched: Callable[..., Any]) -> None:
    seen = watched("adamw")
    entries = seen.snapshot["device_traces"][0][900:]
    late = {**seen.snapshot, "device_traces": [entries]}
    (device,) = tape_from_snapshot(late).devices
    assert device.history == "rebuilt"
    found = attribute(entries, device, seen.stamps, events_seen=seen.events_seen, sizes=Sizes(logits=LOGITS))
    born = [row for row in rows_of(found) if row[-1] and row[4]]
    expected = [row for row in rows_of(seen.recording) if row[-1]][-len(born) :]
    assert [(row[0], row[3]) for row in born] == [(row[0], row[3]) for row in expected]
    wrong = sum(mine[1] != theirs[1] for mine, theirs in zip(born, expected, strict=True))
    assert wrong < 0.05 * len(born)


def test_the_tape_says_it_row_by_row(watched: Callable[..., Any]) -> None:
    seen = watched("adamw")
    (device,) = tape_from_snapshot(seen.snapshot).devices
    entries = seen.snapshot["device_traces"][0]
    found = attribute(entries, device, seen.stamps, events_seen=seen.events_seen)
    told = annotated(device, found)
    rows = list(told.events.rows())
    assert len(rows) == len(told.events)
    births = [row for row, event in enumerate(rows) if event[0] == "alloc"]
    lives = [found.lives[code - 1] for code in found.events if code > 0]
    assert [(told.events.text("category", row), rows[row][2]) for row in births] == [
        (life.category, life.nbytes) for life in lives
    ]
    names = [mark.name for mark in told.marks if mark.kind == "iteration"]
    assert names == ["first", "steady"]
    assert {mark.name for mark in told.marks if mark.kind == "phase"} >= {"forward", "loss", "backward", "step"}


def test_without_stamps_nothing_is_attributed(watched: Callable[..., Any]) -> None:
    seen = watched("sgd")
    (device,) = tape_from_snapshot(seen.snapshot).devices
    found = attribute(seen.snapshot["device_traces"][0], device, [], events_seen=seen.events_seen)
    assert {life.category for life in found.lives} == {UNATTRIBUTED}


@pytest.mark.parametrize("name", ["toy_step", "lm_training_425m"])
def test_a_history_of_a_real_gpu_is_walked_whole(name: str) -> None:
    """Held blocks, several streams, frees that wait: every block is found by its address while it lives."""
    from pathlib import Path

    from estimators.allocator.parse import parse_settings
    from estimators.allocator.placed import place
    from galore_mem.answers.histories import held_segment, placed_segment
    from galore_mem.profiler.stamps import Stamp
    from galore_mem.tapes.memory_viz import Placement, snapshot_dict
    from galore_mem.tapes.recording import read_recording

    tape = read_recording(Path(__file__).parents[2] / "fixtures" / "recorded" / f"{name}.tape.json.gz")
    (recorded,) = tape.devices
    initial = tuple(map(placed_segment, recorded.initial))
    events, segments = place(recorded.events.causes(), parse_settings(tape.settings), initial=initial)
    placement = Placement(events=events, segments=tuple(map(held_segment, segments)))
    snapshot = snapshot_dict(tape, [placement])
    entries = snapshot["device_traces"][recorded.device]
    (device,) = tape_from_snapshot(snapshot).devices
    position = 0
    stamps: list[Stamp] = []
    owners: list[str] = []
    for entry in entries:
        if entry["action"] in ("alloc", "free_requested"):
            position += 1
        if entry["action"] == "alloc":
            owners.append(f"{len(owners)}")
            stamps.append(Stamp(position, "claim", "weights", owners[-1], entry["addr"] + entry["size"] // 2))
    found = attribute(entries, device, stamps, events_seen=position)
    born = [life for life in found.lives if life.module]
    assert [life.module for life in born] == owners
    assert {life.category for life in born} == {"weights"}
    told = annotated(device, found)
    births = [row for row, event in enumerate(told.events.rows()) if event[0] == "alloc"]
    assert [told.events.text("module", row) for row in births] == owners
