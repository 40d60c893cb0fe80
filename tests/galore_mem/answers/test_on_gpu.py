"""Calibration and validation on a real GPU; small, so that they take about a minute together."""

from dataclasses import replace
from pathlib import Path

import pytest

from galore_mem.answers.calibrate import calibrate
from galore_mem.answers.calibrated import VARIABLE
from galore_mem.answers.names import resolve_cards
from galore_mem.answers.validate import validate
from galore_mem.answers.validation.matrix import Row
from profiles.gpus import GIB, MIB
from profiles.models import find_model

pytestmark = pytest.mark.gpu
SHAPE = replace(find_model("llama-60m").shape, name="llama-60m, 2 layers", num_hidden_layers=2)


@pytest.fixture(autouse=True)
def _gpu() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def row(name: str, method: str = "adamw", *, too_large: bool = False, **words: object) -> Row:
    return Row(name=name, model="", method=method, shape=SHAPE, words=words, too_large=too_large)


def test_calibration_finds_a_context_and_plans_use_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv(VARIABLE, str(tmp_path / "calibration.json"))
    result = calibrate()
    found = result.calibration
    assert result.seconds < 60
    assert found.total_bytes == torch.cuda.get_device_properties(0).total_memory
    assert 100 * MIB < found.context_low_bytes <= found.context_high_bytes < 3 * GIB
    assert found.workspace_bytes > 0
    assert found.svd
    assert all(each.scratch_bytes >= 4 * each.shorter * each.longer for each in found.svd), "gesvdj destroys a copy"
    card = resolve_cards(["local"])[0]
    assert "calibrated on this machine" in card.note
    assert card.gpu.usable_bytes == found.total_bytes


def test_a_small_matrix_is_predicted_measured_and_survives_its_caps(tmp_path: Path) -> None:
    rows = [
        row("galore", "galore-adamw", rank=64),
        row("too-large", batch=4096, seq=2048, too_large=True),
        row("per-layer", "galore-adamw", rank=64, update="per-layer"),
        row("expandable", alloc_conf="expandable_segments:True"),
    ]
    told: list[str] = []
    found = validate(into=str(tmp_path), rows=rows, told=told.append, workers=4, limit_minutes=6)
    states = {done.job.row: done.state for done in found.done}
    assert states == {
        "galore": "measured",
        "too-large": "out-of-memory",
        "per-layer": "measured",
        "expandable": "measured",
    }, told
    for record in found.stored.of("measured"):
        if record.outcome != "measured":
            continue
        assert record.measured is not None
        assert record.predicted_at <= record.measured_at
        traced, measured = record.predicted["traced"], record.measured
        assert traced.peak_live_bytes == pytest.approx(measured.peak_live_bytes, rel=0.01), record.row
        assert traced.peak_allocated_bytes == pytest.approx(measured.peak_allocated_bytes, rel=0.01), record.row
        assert dict(traced.resident_bytes) == dict(measured.resident_bytes), record.row
        assert record.reruns["traced"].survived, record.row
        assert record.reruns["analytic"].survived, record.row
    (accuracy, _) = found.stored.accuracy("measured")
    assert accuracy.judgements.count == 4
    assert accuracy.judgements.failed == 0
