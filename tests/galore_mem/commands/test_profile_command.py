"""`galore-mem profile` as a person meets it: what is printed, what is written, and the exit code, however it ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from galore_mem.commands.profile import profile
from galore_mem.errors import ExitCode, NoDeviceError, UsageError
from galore_mem.tapes.recording import read_recording

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
Fake = Callable[..., Any]


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A config.json of two small layers."""
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "intermediate_size": 176,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": 300,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    }
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(config))
    return str(path)


def test_a_cpu_run_is_headed_replayed(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = profile(tiny, device="cpu", steps=2, tape=str(tmp_path / "a.json.gz"), snapshot=str(tmp_path / "a.pickle"))
    out = capsys.readouterr().out
    assert code == ExitCode.ANSWERED
    assert out.startswith("replayed: 2 steps on CPU tensors")
    assert "measured" not in out
    assert "step 2, steady" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    tape = read_recording(tmp_path / "a.json.gz")
    assert tape.source == "replayed"
    assert [step["kind"] for step in tape.metadata["steps"]] == ["first", "steady"]
    assert read_recording(tmp_path / "a.pickle").devices[0].has_effects


def test_a_gpu_run_is_headed_measured(
    tiny: str, tmp_path: Path, fake_gpu: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_gpu()
    code = profile(tiny, gpu=("4090",), steps=2, snapshot=str(tmp_path / "a.pickle"))
    out = capsys.readouterr().out
    assert code == ExitCode.ANSWERED
    assert out.startswith("measured: 2 steps on a fake")
    assert "recording: the last step took" in out
    assert "not attributed at the peak: 0.0 MiB" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert read_recording(tmp_path / "a.pickle").source == "snapshot"


def test_running_out_is_told_with_the_way_out(tiny: str, fake_gpu: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    gpu = fake_gpu(capacity_bytes=2_000_000)
    gpu.allowed_bytes = 500 << 20  # as under set_per_process_memory_fraction
    code = profile(tiny, gpu=("4090",))
    out = capsys.readouterr().out
    assert code == ExitCode.ANSWERED
    assert "It ran out of memory" in out
    assert "out of memory on this GPU" in out
    assert "alive then" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_a_card_that_is_too_small_is_told_on_cpu(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    from galore_mem.answers.names import Card
    from profiles.gpus import find_gpu

    real = find_gpu("4090")
    card = Card(gpu=replace(real, usable_bytes=real.context_high_bytes + (110 << 20)))
    monkeypatch.setattr("galore_mem.answers.asked.resolve_cards", lambda names, other: (card,) if names else ())
    code = profile(tiny, device="cpu", gpu=("4090",), steps=2, json=True, settings=_settings(batch=24, seq=512))
    content = json.loads(capsys.readouterr().out)
    assert code == ExitCode.ANSWERED
    found = content["ran_out"]
    assert found["where"] == "RTX 4090"
    assert found["reserved_bytes"] <= found["limit_bytes"] == 110 << 20
    assert found["live_bytes"] <= found["limit_bytes"] < content["footprint"]["peak_reserved_bytes"]
    assert found["window"] in {"forward_end", "loss", "backward_start"}
    assert sum(found["by_category"].values()) == found["live_bytes"]
    assert found["ways_out"], "a smaller batch fits"
    usable = card.gpu.usable_bytes
    assert all(way["upper_bytes"] <= usable for way in found["ways_out"])


def _settings(**words: Any) -> Any:  # noqa: ANN401
    from galore_mem.answers.settings import Settings

    return Settings(**words)


def test_ctrl_c_leaves_valid_files(
    tiny: str, tmp_path: Path, fake_gpu: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_gpu(interrupt_at=700)
    code = profile(tiny, tape=str(tmp_path / "b.json.gz"))
    streams = capsys.readouterr()
    assert code == ExitCode.INTERRUPTED
    assert "Interrupted: what was seen until then" in streams.out
    assert f"the history until then is in {tmp_path / 'b.json.gz'}" in streams.err.replace("\n", " ")
    assert len(read_recording(tmp_path / "b.json.gz").devices[0].events) >= 700


def test_ctrl_c_on_cpu(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from galore_mem.profiler.recorder import Recorder

    bear, seen = Recorder._bear, []

    def counted(self: Recorder, life: Any) -> int:  # noqa: ANN401
        seen.append(life)
        if len(seen) == 400:
            raise KeyboardInterrupt
        return bear(self, life)

    monkeypatch.setattr(Recorder, "_bear", counted)
    code = profile(tiny, device="cpu", tape=str(tmp_path / "c.json.gz"))
    assert code == ExitCode.INTERRUPTED
    tape = read_recording(tmp_path / "c.json.gz")
    assert tape.source == "replayed"
    assert len(tape.devices[0].events) > 400


def test_files_that_cannot_be_written_are_refused_before_anything_runs(tiny: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        profile(tiny, device="cpu", tape=str(tmp_path / "no" / "such.json.gz"))


def test_without_a_gpu_the_exit_code_is_3(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NoDeviceError) as refusal:
        profile(tiny)
    assert refusal.value.exit_code == ExitCode.NO_DEVICE
    assert "--device cpu" in str(refusal.value)


def test_the_bar_shows_what_is_held_now_and_at_most() -> None:
    from galore_mem.render.live import live, memory_text

    assert memory_text(1 << 30, 3 << 29) == "1.00 GiB now, 1.50 at most"
    with live(3) as shown:  # no terminal here: nothing is drawn, and nothing fails
        shown.watched(lambda: (0, 0))
        shown.told("step 1 of 3")
