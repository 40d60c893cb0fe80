"""One frozen value, saved and restored; rows follow from it."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from estimators.workload import METHODS
from galore_mem.answers.command_line import command_line, settings_of
from galore_mem.answers.names import resolve_model
from galore_mem.answers.plan import plan
from galore_mem.answers.settings import means_something
from galore_mem.commands.quick import bind
from galore_mem.tui.controls import CONTROLS
from galore_mem.tui.rows import Row, rows_of
from galore_mem.tui.saved import Keeper, load, save
from galore_mem.tui.state import CHANGES, DEFAULTS, State, Value, state_from
from profiles.errors import InputError

RICH = (
    State(methods=("adamw", "galore-adamw-8bit"), gpus=("4090", "h100"), words="8bit", marks=("a", "b"), baseline="a")
    .with_values("seq", (512, 1024))
    .with_values("target_modules", (("q_proj", "v_proj"),))
    .with_values("alloc_conf", ("", "expandable_segments:True"))
)


def rows(state: State) -> tuple[Row, ...]:
    return rows_of(state, {name: resolve_model(name) for name in state.models})


def test_a_state_survives_being_saved(tmp_path: Path) -> None:
    save(tmp_path / "new" / "tui.json", RICH)
    assert load(tmp_path / "new" / "tui.json") == (RICH, "")


def test_without_a_file_the_story_is_shown(tmp_path: Path) -> None:
    state, problem = load(tmp_path / "none.json")
    assert (state, problem) == (State(), "")
    assert [row.name for row in rows(state)] == [
        "adamw",
        "adamw-8bit",
        "lora r16",
        "galore-adamw r1024",
        "galore-adamw-8bit r1024",
        "galore-adamw-8bit r1024 per-layer",
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"[1, 2]",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"schema": "galore-mem/tui/99"}',
        b'{"schema": "galore-mem/tui/1", "models": []}',
        b'{"schema": "galore-mem/tui/1", "models": "llama-7b"}',
        b'{"schema": "galore-mem/tui/1", "view": "nowhere"}',
        b'{"schema": "galore-mem/tui/1", "dark": "yes"}',
        b'{"schema": "galore-mem/tui/1", "settings": []}',
        b'{"schema": "galore-mem/tui/1", "settings": {"seq": [-1]}}',
        b'{"schema": "galore-mem/tui/1", "settings": {"seq": ["many"]}}',
        b'{"schema": "galore-mem/tui/1", "settings": {"nothing": [1]}}',
        b'{"schema": "galore-mem/tui/1", "settings": {"loss": [{"a": 1}]}}',
    ],
)
def test_a_file_that_cannot_be_used_is_put_aside(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tui.json"
    path.write_bytes(content)
    state, problem = load(path)
    assert state == State()
    assert "started afresh" in problem
    assert "\n" not in problem
    assert not path.exists()
    assert (tmp_path / "tui.json.unusable").read_bytes() == content


def test_a_folder_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    keeper = Keeper(tmp_path / "file" / "tui.json")
    assert keeper.keep(State()).startswith("the state is not kept")
    assert keeper.keep(State()) == ""


def test_missing_keys_take_their_defaults() -> None:
    assert state_from({"schema": "galore-mem/tui/1", "words": "fits"}) == State(words="fits")


def test_every_combination_becomes_a_row() -> None:
    state = State(methods=("adamw", "galore-adamw")).with_values("rank", (128, 512)).with_values("seq", (256, 1024))
    assert [row.name for row in rows(state)] == [
        "adamw seq 256",
        "adamw seq 1,024",
        "galore-adamw r128 seq 256",
        "galore-adamw r128 seq 1,024",
        "galore-adamw r512 seq 256",
        "galore-adamw r512 seq 1,024",
    ]


def test_the_default_alone_is_not_kept() -> None:
    assert State().with_values("seq", (256,)) == State()
    assert State().with_values("seq", (256, 512)).values("seq") == (256, 512)


def test_values_that_mean_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="--seq 0"):
        State().with_values("seq", (0,))


def test_too_many_rows_are_refused() -> None:
    state = State().with_values("seq", range(1, 1000))
    with pytest.raises(InputError, match="too many"):
        rows(state)


def test_the_command_of_a_row_plans_the_same_workload() -> None:
    state = (
        RICH.with_values("rank", (77,))
        .with_values("checkpointing", ("full",))
        .with_values("keep_outputs", (True,))
        .with_values("dropout", (0.05,))
        .with_values("precision", ("amp-bf16", "fp32"))
    )
    for row in rows(state):
        words = shlex.split(command_line("plan", row.model, row.workload, ("4090",), other_use="1GiB"))
        assert words[0] == "galore-mem"
        bound = bind(words[1:], ("plan",))
        assert bound is not None
        _, (model,), named = bound
        result = plan(model, gpus=named["gpu"], methods=named["method"], settings=named.get("settings"))
        assert result.plans[0].workload == row.workload


def test_every_setting_has_a_control_and_a_place_in_the_command() -> None:
    assert {control.name for control in CONTROLS if control.is_setting} == set(DEFAULTS)
    others: dict[str, Value] = {
        "update": "per-layer",
        "update_proj_gap": 7,
        "scale": 2.0,
        "proj_type": "right",
        "target_modules": ("q_proj",),
        "optimizer_kernel": "fused",
        "quant_blocksize": 2048,
        "embedding_optim_bits": 32,
        "rank": 5,
        "implementation": "galore-torch",
        "lora_dropout": 0.1,
        "master_weights": True,
        "batch": 3,
        "seq": 99,
        "grad_accumulation": 2,
        "precision": "fp32",
        "checkpointing": "full",
        "attention": "math",
        "loss": "chunked",
        "keep_outputs": True,
        "use_cache": True,
        "dropout": 0.1,
        "padding": True,
        "zero_grad": "end",
        "clip": True,
        "resume": "device",
        "empty_cache": "step",
        "eval_batch": 3,
        "eval_seq": 99,
        "eval_keep": 2,
        "bnb_4bit_use_double_quant": True,
        "adapter_dtype": "bf16",
        "autocast": True,
        "data_parallel": 4,
        "gradient_as_bucket_view": True,
        "bucket_cap_mb": 50,
        "alloc_conf": "expandable_segments:True",
    }
    assert set(others) == set(DEFAULTS)
    for name, value in others.items():
        method = next(method for method in METHODS if means_something(name, method))
        (row,) = rows(State(methods=(method,)).with_values(name, (value,)))
        assert settings_of(row.workload)[name] == value


def test_keys_are_commands_and_tell_rows_apart() -> None:
    found = rows(RICH.with_values("rank", (8, 16)))
    assert len({row.key for row in found}) == len(found) == 2 * 2 + 2 * 2 * 2


def test_a_row_that_cannot_run_says_why() -> None:
    state = (
        State(methods=("galore-adamw",))
        .with_values("update", ("per-layer",))
        .with_values("implementation", ("galore-torch",))
        .with_values("grad_accumulation", (4,))
    )
    (row,) = rows(state)
    assert "impossible under galore-torch" in row.problem


def test_changes_by_a_key_alone_come_round() -> None:
    state = State(marks=("a",), baseline="a")
    for _ in range(5):
        state = CHANGES["next sort"](state)
    assert state.sort == "asked"
    assert CHANGES["no marks"](state) == State()
    assert CHANGES["other theme"](CHANGES["other theme"](state)) == state
    assert CHANGES["other order"](state) == replace(state, descending=True)


def test_the_saved_file_is_json_that_people_can_read(tmp_path: Path) -> None:
    save(tmp_path / "tui.json", RICH)
    data = json.loads((tmp_path / "tui.json").read_text())
    assert data["settings"]["seq"] == [512, 1024]


def test_marks_and_the_cursor_stay_where_a_shared_setting_changes() -> None:
    before = rows(State())
    after = rows(State().with_values("batch", (4,)).with_values("checkpointing", ("full",)))
    assert [row.slot for row in before] == [row.slot for row in after]
    assert not {row.key for row in before} & {row.key for row in after}
    several = rows(State().with_values("batch", (1, 4)))
    assert len({row.slot for row in several}) == len(several) == 12
