"""Made-up runs as torch's own recorder would have written them: addresses, stacks, annotations, and no categories."""

from typing import Any

from estimators.allocator.parse import parse_settings
from estimators.allocator.placed import place
from galore_mem.answers.histories import held_segment, placed_segment
from galore_mem.tapes.memory_viz import _segment_dict
from galore_mem.tapes.tape import Tape

Frame = dict[str, Any]
MODEL = "/home/someone/train/model.py"
SCRIPT = "/home/someone/train/main.py"
SITE = "/usr/lib/python3/site-packages/torch"


def _frame(filename: str, line: int, name: str) -> Frame:
    return {"filename": filename, "line": line, "name": name}


MAIN = _frame(SCRIPT, 80, "main")
STACKS: dict[str, list[Frame]] = {
    "weights": [
        _frame(f"{SITE}/nn/modules/module.py", 1100, "_apply"),
        _frame(f"{SITE}/nn/modules/module.py", 1300, "to"),
        _frame(SCRIPT, 20, "main"),
    ],
    "forward": [
        _frame(f"{SITE}/nn/modules/linear.py", 125, "forward"),
        _frame(f"{SITE}/nn/modules/module.py", 1750, "_call_impl"),
        _frame(MODEL, 33, "forward"),
        _frame(f"{SITE}/nn/modules/module.py", 1750, "_call_impl"),
        MAIN,
    ],
    "loss": [
        _frame(f"{SITE}/nn/functional.py", 3479, "cross_entropy"),
        _frame(MODEL, 60, "loss"),
        _frame(SCRIPT, 81, "main"),
    ],
    "backward": [
        _frame(f"{SITE}/autograd/graph.py", 829, "_engine_run_backward"),
        _frame(f"{SITE}/_tensor.py", 648, "backward"),
        _frame(SCRIPT, 82, "main"),
    ],
    "step": [
        _frame(f"{SITE}/optim/adamw.py", 220, "_multi_tensor_adamw"),
        _frame(f"{SITE}/optim/optimizer.py", 493, "wrapper"),
        _frame(SCRIPT, 83, "main"),
    ],
    "between": [_frame(SCRIPT, 84, "main")],
}
"""Innermost first, as torch writes them."""


def snapshot_of(
    tape: Tape,
    *,
    with_stacks: bool = True,
    with_annotations: bool = True,
    backward_has_stacks: bool = True,
    entries: int | None = None,
    refused: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """What `torch.cuda.memory._snapshot()` would have returned.

    Args:
        tape: a made-up run, of one device.
        with_stacks: frames on every entry.
        with_annotations: marks around the optimizer's steps.
        backward_has_stacks: off as on a GPU, where autograd's own thread runs backward.
        entries: how many trace entries the recorder's buffer holds; None for all.
        refused: (bytes asked for, bytes that the driver had left) of a failure at the end.
    """
    (device,) = tape.devices
    table = device.events
    events, segments = place(
        table.causes(), parse_settings(tape.settings), initial=tuple(map(placed_segment, device.initial))
    )
    rows = table.cause_rows()
    trace: list[dict[str, Any]] = []
    for action, address, size, stream, _, cause in events:
        phase = table.text("phase", rows[cause])
        entry = {"action": action, "addr": address, "size": size, "stream": stream, "time_us": 1_000 * cause}
        if with_stacks and (backward_has_stacks or phase != "backward"):
            is_weight = table.text("category", rows[cause]) == "weights"
            entry["frames"] = STACKS["weights" if is_weight else phase or "between"]
        trace.append(entry)
    if refused is not None:
        asked, left = refused
        trace.append({"action": "oom", "device_free": left, "size": asked, "stream": 0, "time_us": 1_000 * len(table)})
    return {
        "segments": [_segment_dict(0, held_segment(segment)) for segment in segments],
        "device_traces": [trace[-entries:] if entries else trace],
        "allocator_settings": {"PYTORCH_CUDA_ALLOC_CONF": tape.settings},
        "external_annotations": _annotations(tape) if with_annotations else [],
    }


def _annotations(tape: Tape) -> list[dict[str, Any]]:
    found = []
    inside = False
    for mark in tape.devices[0].marks:
        if mark.kind == "phase" and (mark.name == "step") != inside:
            inside = mark.name == "step"
            stage = "START" if inside else "END"
            found.append({"name": "Optimizer.step#AdamW.step", "stage": stage, "device": 0, "time_us": mark.time_us})
    return found
