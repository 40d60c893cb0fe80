"""From what a person types to models and cards."""

import json
from pathlib import Path

import pytest

from galore_mem.answers.names import resolve_gpus, resolve_model
from profiles.errors import InputError
from profiles.models import find_model

CONFIG = dict(find_model("llama-60m").config)


def test_names_of_the_catalogue() -> None:
    assert resolve_model("LLaMA_7B").shape == find_model("llama-7b").shape
    assert [gpu.name for gpu in resolve_gpus(["4090", "h100", "rtx-4090"])] == ["RTX 4090", "H100 80GB SXM"]


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
        ("somebody/some-model", "config.json"),
        ("missing.json", "no file"),
        ("./missing", "no file"),
        ("", "unknown model"),
    ],
)
def test_models_that_are_not_there(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        resolve_model(name)
