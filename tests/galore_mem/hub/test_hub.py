"""Names of the Hub, against a stand-in of its endpoints: what is fetched, kept, sent along, and refused."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from estimators.analytic.parameters import model_parameters, parameter_count
from galore_mem.__main__ import main
from galore_mem.answers.names import resolve_model
from galore_mem.answers.plan import plan
from galore_mem.errors import ExitCode, NetworkError, UsageError
from galore_mem.hub.headers import HeaderError, header_length, weights_of
from galore_mem.hub.repository import read_model, repository_of
from profiles.configs import shape_from_config
from profiles.errors import InputError
from profiles.models import find_model
from tests.galore_mem.hub.stand_in import COMMIT, TOKEN, Repository, StandIn, safetensors

CONFIG: dict[str, Any] = dict(find_model("llama-60m").config) | {"torch_dtype": "bfloat16"}
SHAPE = shape_from_config(CONFIG, "org/small")
NAME = "org/small"


def tensors(dtype: str = "BF16") -> dict[str, tuple[str, list[int]]]:
    """Every parameter of the model as its checkpoint stores it."""
    found = {}
    for group in model_parameters(SHAPE):
        for layer in range(group.count):
            found[group.name.replace("*", str(layer))] = (dtype, list(group.shape))
    return found


def one_file(**words: Any) -> Repository:  # noqa: ANN401
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": safetensors(tensors())}
    return Repository(files=files, **words)


def two_files() -> Repository:
    names = list(tensors())
    halves = [dict(list(tensors().items())[: len(names) // 2]), dict(list(tensors().items())[len(names) // 2 :])]
    parts = {f"model-0000{n}-of-00002.safetensors": safetensors(half) for n, half in enumerate(halves, 1)}
    index = {
        "metadata": {},
        "weight_map": {name: part for part, half in zip(parts, halves, strict=True) for name in half},
    }
    return Repository(
        files={
            "config.json": json.dumps(CONFIG).encode(),
            "model.safetensors.index.json": json.dumps(index).encode(),
            **parts,
        }
    )


@pytest.mark.parametrize("repository", [one_file(), two_files()], ids=["one file", "two files"])
@pytest.mark.parametrize("understands_ranges", [True, False])
def test_parameters_are_counted_without_weights(hub: StandIn, repository: Repository, understands_ranges: bool) -> None:
    hub.repositories[NAME], hub.understands_ranges = repository, understands_ranges
    found = read_model(NAME, "main")
    assert found.weights is not None
    assert dict(found.weights.parameters) == {"BF16": parameter_count(SHAPE)}
    assert found.weights.nbytes == 2 * parameter_count(SHAPE)
    assert found.commit == COMMIT
    assert {path.split("/", 5)[-1] for path in hub.paths()} <= set(repository.files) | {"model.safetensors.index.json"}
    if understands_ranges:
        assert all(sent == 100_000 for sent in hub.sent_bytes.values())


def test_a_long_header_takes_a_second_request(hub: StandIn) -> None:
    repository = one_file()
    repository.files["model.safetensors"] = safetensors(tensors(), padding=250_000)
    hub.repositories[NAME] = repository
    found = read_model(NAME, "main")
    assert found.weights is not None
    assert found.weights.total == parameter_count(SHAPE)


def test_a_plan_by_name_is_the_plan_of_its_config(hub: StandIn, tmp_path: Path) -> None:
    hub.repositories[NAME] = one_file()
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    by_name = plan(NAME, methods="adamw", gpus="4090")
    by_path = plan(str(tmp_path), methods="adamw", gpus="4090")
    assert by_name.plans[0].footprint == by_path.plans[0].footprint
    assert by_name.notes == ()
    data = by_name.to_dict()["model"]
    assert data["source"] == f"{hub.endpoint}/{NAME}@{COMMIT[:12]}"
    assert data["checkpoint"]["parameters"] == {"BF16": parameter_count(SHAPE)}


def test_what_was_seen_is_not_fetched_again(hub: StandIn) -> None:
    hub.repositories[NAME] = one_file()
    first = read_model(NAME, "main")
    hub.requests.clear()
    assert read_model(NAME, "main") == first
    assert [path.rsplit("/", 1)[-1] for path in hub.paths()] == ["config.json"]  # a branch may have moved
    hub.requests.clear()
    pinned = read_model(NAME, COMMIT)
    assert pinned.weights == first.weights
    assert hub.requests == []


def test_a_branch_that_moved_is_fetched_anew(hub: StandIn) -> None:
    hub.repositories[NAME] = one_file()
    read_model(NAME, "main")
    moved = one_file(commit="f" * 40, revisions=("main", "f" * 40))
    moved.files["model.safetensors"] = safetensors({"a": ("F32", [3])})
    hub.repositories[NAME] = moved
    found = read_model(NAME, "main")
    assert found.commit == "f" * 40
    assert found.weights is not None
    assert dict(found.weights.parameters) == {"F32": 3}


def test_without_a_network_the_last_state_is_used_and_said(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories[NAME] = one_file()
    seen = read_model(NAME, "main")
    hub.failures = 99
    again = read_model(NAME, "main")
    assert (again.config, again.weights) == (seen.config, seen.weights)
    assert "as it was at commit" in again.notes[0]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.requests.clear()
    assert read_model(NAME, "main").notes == ()
    assert hub.requests == []


def test_offline_and_never_seen(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NetworkError, match="never fetched"):
        read_model(NAME, "main")
    assert hub.requests == []


def test_the_cache_of_transformers_is_read(hub: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "hf" / "hub" / "models--org--small"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT, encoding="ascii")
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    for name, data in one_file().files.items():
        (folder / "snapshots" / COMMIT / name).write_bytes(data)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = read_model(NAME, "main")
    assert found.weights is not None
    assert found.weights.total == parameter_count(SHAPE)


def test_the_token_goes_to_the_hub_only(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories[NAME] = one_file(needs_token=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    read_model(NAME, "main")
    to_store = [token for host, path, token in hub.requests if path.startswith("/store/")]
    to_hub = [token for host, path, token in hub.requests if not path.startswith("/store/")]
    assert to_store == [""]
    assert set(to_hub) == {f"Bearer {TOKEN}"}


def test_the_token_of_a_login_is_used(hub: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub.repositories[NAME] = one_file(needs_token=True)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text(f"{TOKEN}\n", encoding="utf-8")
    assert read_model(NAME, "main").weights is not None
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    with pytest.raises(UsageError, match="HF_TOKEN"):
        read_model(NAME, "v1.0")


def test_a_renamed_repository_keeps_its_token(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["org/old"] = Repository(files={}, moved_to=NAME)
    hub.repositories[NAME] = one_file(needs_token=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert read_model("org/old", "main").weights is not None


def test_a_busy_hub_is_asked_again(hub: StandIn) -> None:
    hub.repositories[NAME] = one_file()
    hub.failures = 2
    assert read_model(NAME, "main").commit == COMMIT


def test_checkpoints_without_safetensors_are_planned_by_their_config(hub: StandIn) -> None:
    hub.repositories[NAME] = Repository(files={"config.json": json.dumps(CONFIG).encode()})
    named = resolve_model(NAME)
    assert named.checkpoint is None
    assert "counted from the configuration alone" in named.notes[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({**tensors(), "extra.weight": ("BF16", [7])}, "its configuration makes"),
        (tensors("F32"), "stored in fp32"),
        (tensors("F8_E4M3"), "stored as F8_E4M3"),
    ],
)
def test_differences_between_checkpoint_and_config_are_said(
    hub: StandIn, content: dict[str, tuple[str, list[int]]], words: str
) -> None:
    repository = one_file()
    repository.files["model.safetensors"] = safetensors(content)
    hub.repositories[NAME] = repository
    assert words in " ".join(resolve_model(NAME).notes)


def test_stored_buffers_are_no_parameters(hub: StandIn) -> None:
    repository = one_file()
    stored = {**tensors(), "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", [32])}
    repository.files["model.safetensors"] = safetensors(stored)
    hub.repositories[NAME] = repository
    assert resolve_model(NAME).notes == ()


@pytest.mark.parametrize(
    ("line", "repository", "words", "code"),
    [
        ("org/none", None, ["does not show org/none", "HF_TOKEN"], ExitCode.BAD_INPUT),
        ("org/small@v9", one_file(), ["no revision 'v9'"], ExitCode.BAD_INPUT),
        ("org/small", one_file(error_code="GatedRepo"), ["is gated", "accept its terms"], ExitCode.BAD_INPUT),
        ("org/small", one_file(needs_token=True), ["private", "HF_TOKEN"], ExitCode.BAD_INPUT),
        ("org/small", Repository(files={}), ["has no config.json", "adapter"], ExitCode.BAD_INPUT),
        ("org/small", Repository(files={"config.json": b"[]"}), ["holds a list"], ExitCode.BAD_INPUT),
        ("org/small", Repository(files={"config.json": b'{"model_type": "clip"}'}), ["clip"], ExitCode.BAD_INPUT),
        ("org/small/more", None, ["org/name"], ExitCode.BAD_INPUT),
        ("org/small@", None, ["org/name"], ExitCode.BAD_INPUT),
        ("../small", None, ["no file"], ExitCode.BAD_INPUT),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    hub: StandIn,
    line: str,
    repository: Repository | None,
    words: list[str],
    code: ExitCode,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if repository is not None:
        hub.repositories[NAME] = repository
    monkeypatch.setattr(sys, "argv", ["galore-mem", "plan", line])
    assert main() == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    for word in words:
        assert word in err


@pytest.mark.parametrize("reason", ["down", "nowhere", "offline"])
def test_no_network_is_exit_code_4(
    hub: StandIn, reason: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason == "down":
        hub.failures = 99
    elif reason == "nowhere":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    else:
        monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    monkeypatch.setattr(sys, "argv", ["galore-mem", "plan", NAME])
    assert main() == 4
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("meta-llama/Llama-3.2-1B", ("meta-llama/Llama-3.2-1B", "main")),
        ("org/name@refs/pr/4", ("org/name", "refs/pr/4")),
        ("org/name@0123abc", ("org/name", "0123abc")),
        ("name", None),
        ("a/b/c", None),
        ("org/..", None),
        ("org/name@", None),
        ("org/na me", None),
        ("-org/name", None),
        ("http://host/name", None),
    ],
)
def test_names(name: str, expected: tuple[str, str] | None) -> None:
    assert repository_of(name) == expected


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b'{"a": 1}',
        b'{"a": {"dtype": "X9", "shape": [1]}}',
        b'{"a": {"dtype": "F32", "shape": [-1]}}',
        b"{" * 9999,
    ],
)
def test_bad_headers_are_refused(header: bytes) -> None:
    with pytest.raises(HeaderError):
        weights_of(header)


@pytest.mark.parametrize("start", [b"", b"\x01\x00", b"\xff" * 8, b"\x00" * 8])
def test_bad_lengths_are_refused(start: bytes) -> None:
    with pytest.raises(HeaderError):
        header_length(start)


def test_an_endpoint_that_is_no_address(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "file:///etc")
    with pytest.raises(UsageError, match="HF_ENDPOINT"):
        read_model(NAME, "main")


def test_names_of_the_catalogue_need_no_network(hub: StandIn) -> None:
    resolve_model("meta-llama/Llama-2-7b-hf")
    with pytest.raises(InputError):
        resolve_model("llama-8b")
    assert hub.requests == []
