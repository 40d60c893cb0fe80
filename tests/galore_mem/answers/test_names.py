"""From what a person types to models and cards."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from galore_mem.answers.local_gpu import LocalGpu
from galore_mem.answers.names import Card, resolve_cards, resolve_model
from profiles.errors import InputError
from profiles.gpus import find_gpu
from profiles.models import find_model

CONFIG = dict(find_model("llama-60m").config)


def test_names_of_the_catalogue() -> None:
    assert resolve_model("LLaMA_7B").shape == find_model("llama-7b").shape
    assert [card.gpu.name for card in resolve_cards(["4090", "h100", "rtx-4090"])] == ["RTX 4090", "H100 80GB SXM"]


def test_local_cards_bring_what_others_use_unless_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = find_gpu("4090")
    here = LocalGpu(index=0, uuid="", device_name="", gpu=gpu, total_bytes=gpu.usable_bytes, other_use_bytes=5)
    monkeypatch.setattr("galore_mem.answers.local_gpu.local_gpus", lambda: (here, replace(here, index=1)))
    assert resolve_cards(["local"]) == (Card(gpu=gpu, other_use_bytes=5),)
    assert resolve_cards(["local"], 7) == (Card(gpu=gpu, other_use_bytes=7),)
    assert resolve_cards(["Local", "4090"]) == (Card(gpu=gpu, other_use_bytes=5), Card(gpu=gpu))


def test_a_config_is_found_by_file_and_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(json.dumps(CONFIG))
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "./mine", "mine/config.json", str(tmp_path / "mine")):
        assert resolve_model(name).shape.hidden_size == 512


def test_the_catalogue_wins_over_a_folder_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llama-7b").mkdir()
    (tmp_path / "llama-7b" / "config.json").write_text(json.dumps(CONFIG))
    monkeypatch.chdir(tmp_path)
    assert resolve_model("llama-7b").shape.hidden_size == 4096
    assert resolve_model("./llama-7b").shape.hidden_size == 512


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("llama-8b", "did you mean"),
        ("somebody/some/model", "org/name"),
        ("missing.json", "no file"),
        ("./missing", "no file"),
        ("", "unknown model"),
    ],
)
def test_models_that_are_not_there(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        resolve_model(name)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NousResearch/Llama-2-7b-hf", "llama-2-7b"),
        ("somebody/Llama-2-7B-Chat-HF@main", "llama-2-7b"),
        ("NousResearch/Meta-Llama-3-8B-Instruct", "llama-3-8b"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2.5-0.5b"),
        ("unsloth/Llama-3.2-1B-Instruct", "llama-3.2-1b"),
    ],
)
def test_without_the_hub_copies_and_variants_are_known_by_their_names(name: str, known: str) -> None:
    found = resolve_model(name)
    assert found.shape == find_model(known).shape
    assert any(f"planned as {find_model(known).name}" in note for note in found.notes)


@pytest.mark.parametrize("name", ["org/Llama-2-7B-GPTQ", "org/my-llama", "org/Llama-2-7b-instruct-v9"])
def test_other_names_still_need_the_hub(name: str) -> None:
    from galore_mem.errors import NetworkError

    with pytest.raises(NetworkError):
        resolve_model(name)
