"""The pasted loops run."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.galore_quality import Setting, batches, small_llama, standard_library_bytes

DOCUMENT = Path(__file__).parents[3] / "docs" / "galore.md"


def test_the_training_loops_run_and_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    setting = Setting(hidden_size=64, intermediate_size=176, layers=1, sequence_length=32, batch_size=4)
    whole, per_layer = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in whole.splitlines() if line]) <= 12
    scope: dict[str, Any] = {
        "model": small_llama(setting),
        "batches": list(batches(standard_library_bytes(100_000), setting, 40, 0)),
    }
    exec(compile(whole, "whole", "exec"), scope)
    assert scope["loss"].item() < 4.5
    exec(compile(per_layer, "per-layer", "exec"), scope)
    saved = torch.load(tmp_path / "optimizer.pt", weights_only=True)
    assert len(saved["state"]) == len(list(scope["model"].parameters()))
