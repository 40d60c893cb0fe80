"""Every control of the settings, by keyboard and by mouse, and the dialogues behind them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from estimators.workload import Method
from galore_mem.answers.break_even import break_even_rank
from galore_mem.answers.names import Card
from galore_mem.errors import NoDeviceError
from galore_mem.tui.app import GaloreMemApp
from galore_mem.tui.controls import BY_NAME, CONTROLS, chosen, read, said, shown, stepped
from galore_mem.tui.picker import Picker
from galore_mem.tui.session import Session
from galore_mem.tui.settings_pane import LABEL, Setting
from galore_mem.tui.state import State
from profiles.errors import InputError
from profiles.gpus import find_gpu
from profiles.models import find_model

AppMaker = Callable[..., GaloreMemApp]
Settle = Callable[[Pilot[Any]], Awaitable[None]]
TALL = (100, 44)


def drive(app: GaloreMemApp, script: Callable[[Pilot[Any]], Awaitable[None]], size: tuple[int, int] = TALL) -> None:
    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await pilot.press("6")
            await script(pilot)

    asyncio.run(run())


def messages(app: GaloreMemApp) -> str:
    return "\n".join(notification.message for notification in app._notifications)


STEPPED = [control.name for control in CONTROLS if control.is_setting and control.kind != "text"]


def test_right_and_left_step_every_setting_and_backspace_takes_the_default(make_app: AppMaker) -> None:
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        await pilot.press("1", "home", "down", "space", "b", "6")
        before = app.state
        for name in STEPPED:
            app.query_one(f"#set-{name.replace('_', '-')}", Setting).focus()
            await pilot.press("right")
            up = app.state.values(name)
            assert up, name
            assert app.panes.workspace.pane("settings").query(Setting).first()._state == app.state
            await pilot.press("left")
            down = app.state.values(name)
            assert down != up, name
            await pilot.press("backspace")
            assert app.state == before, name
        assert len(STEPPED) == 35

    drive(app, script)


def test_a_click_on_an_arrow_steps_and_elsewhere_offers(make_app: AppMaker) -> None:
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        for name in ("seq", "checkpointing", "zero_grad"):
            setting = app.query_one(f"#set-{name.replace('_', '-')}", Setting)
            await pilot.click(setting, offset=(setting.size.width - 1, 0))
            assert app.state.values(name), name
            await pilot.click(setting, offset=(LABEL, 0))
            assert app.state.values(name) == (), name
        await pilot.click("#set-batch", offset=(3, 0))
        await pilot.pause()
        assert isinstance(app.screen, Picker)
        await pilot.click("#picker-cancel")
        assert not isinstance(app.screen, Picker)

    drive(app, script)


async def picker(app: GaloreMemApp, pilot: Pilot[Any], name: str) -> Picker:
    app.query_one(f"#set-{name.replace('_', '-')}", Setting).focus()
    await pilot.press("enter")
    await pilot.pause()
    assert isinstance(app.screen, Picker)
    return app.screen


async def type_into(app: GaloreMemApp, pilot: Pilot[Any], name: str, text: str) -> Picker:
    shown_picker = await picker(app, pilot, name)
    shown_picker.query_one(Input).value = text
    shown_picker.query_one(Input).focus()
    await pilot.press("enter")
    return shown_picker


def test_dialogues_take_what_is_typed_ticked_or_clicked(make_app: AppMaker) -> None:
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        await type_into(app, pilot, "seq", "512, 2048")
        assert app.state.values("seq") == (512, 2048)
        shown_picker = await type_into(app, pilot, "seq", "many")
        assert "is not a number" in str(shown_picker.query_one("#picker-problem").render())
        await pilot.press("escape")
        assert app.state.values("seq") == (512, 2048)
        await picker(app, pilot, "seq")
        await pilot.press("ctrl+r")
        assert app.state.values("seq") == ()
        await picker(app, pilot, "precision")
        await pilot.press("space", "down", "down", "space", "enter")
        assert app.state.values("precision") == ("bf16", "amp-bf16")
        await picker(app, pilot, "precision")
        await pilot.click("#picker-default")
        assert app.state.values("precision") == ()
        await type_into(app, pilot, "methods", "adafactor")
        assert app.state.methods[0] == "adafactor"
        shown_picker = await picker(app, pilot, "methods")
        shown_picker.query_one(Input).value = ""
        await pilot.press("down", "home", "space")
        await pilot.click("#picker-take")
        assert app.state.methods == ("adamw", "adafactor")
        await type_into(app, pilot, "alloc_conf", "max_split_size_mb:64")
        assert app.state.values("alloc_conf") == ("max_split_size_mb:64",)
        await type_into(app, pilot, "target_modules", "q_proj,v_proj")
        assert app.state.values("target_modules") == (("q_proj", "v_proj"),)
        await type_into(app, pilot, "other_use", "800MiB")
        assert app.board.card.card.other_use_bytes == 800 * 2**20

    drive(app, script)


def test_models_are_searched_read_from_paths_and_refused(make_app: AppMaker, settle: Settle, tmp_path: Path) -> None:
    config = dict(find_model("llama-60m").config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        await type_into(app, pilot, "models", "llama-3-8b")
        await settle(pilot)
        assert app.state.models == ("llama-3-8b",)
        assert app.board.rows[0].workload.model.name == "llama-3-8b"
        await type_into(app, pilot, "models", str(tmp_path / "config.json"))
        await settle(pilot)
        assert app.state.models == (str(tmp_path / "config.json"),)
        assert app.board.rows[0].workload.model.hidden_size == config["hidden_size"]
        for wrong in ("somebody/no-such-model", str(tmp_path / "missing.json"), "nothing-like-it"):
            await type_into(app, pilot, "models", wrong)
            await settle(pilot)
            assert app.state.models == (str(tmp_path / "config.json"),)
            assert wrong.split("/")[-1] in messages(app)

    drive(app, script)


def test_cards_are_many_and_the_local_one_is_live(make_app: AppMaker, settle: Settle) -> None:
    gpu = find_gpu("4070")
    readings = [(Card(gpu=gpu, other_use_bytes=2**30),), (Card(gpu=gpu, other_use_bytes=2**31),)]
    session = Session(local=lambda: readings[0], find=lambda name: Card(gpu=find_gpu(name)))
    app = make_app(session=session)

    async def script(pilot: Pilot[Any]) -> None:
        shown_picker = await picker(app, pilot, "gpus")
        await pilot.press("down", "home", "space", "enter")
        await settle(pilot)
        assert "local" in app.state.gpus
        local = next(card for card in app.board.cards if card.name == "local")
        assert local.title == "RTX 4070 (here)"
        assert local.card.other_use_bytes == 2**30
        del readings[0]
        app._read_local()
        await settle(pilot)
        local = next(card for card in app.board.cards if card.name == "local")
        assert local.card.other_use_bytes == 2**31
        assert shown_picker.control.name == "gpus"

    drive(app, script)


def test_without_a_local_card_the_others_stay(make_app: AppMaker, settle: Settle) -> None:
    app = make_app(State(gpus=("local", "4090"), card="local"))

    async def script(pilot: Pilot[Any]) -> None:
        await settle(pilot)
        assert app.state.gpus == ("4090",)
        assert "no NVIDIA driver" in messages(app)

    drive(app, script)


def test_a_reading_that_fails_later_keeps_the_rest(make_app: AppMaker, settle: Settle) -> None:
    def fails() -> tuple[Card, ...]:
        raise NoDeviceError("the NVIDIA driver does not answer")

    app = make_app(State(gpus=("local",)), session=Session(local=fails))

    async def script(pilot: Pilot[Any]) -> None:
        await settle(pilot)
        assert app.board.rows
        assert "local" not in app.state.gpus

    drive(app, script)


def test_ranks_are_offered_with_the_break_even(make_app: AppMaker) -> None:
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        shown_picker = await picker(app, pilot, "rank")
        options = shown_picker.query_one(OptionList).options
        texts = [str(option.prompt) for option in options]
        assert any("1,548" in text and "galore-adamw breaks even" in text for text in texts)

    drive(app, script)


@pytest.mark.parametrize("method", ["galore-adamw", "galore-adamw-8bit"])
@pytest.mark.parametrize("model", ["llama-60m", "llama-7b"])
def test_up_to_the_break_even_the_states_take_less_than_8bit_adam(method: str, model: str) -> None:
    from galore_mem.answers.plan import plan

    def states(name: str, rank: int | None) -> int:
        resident = plan(model, methods=name, rank=rank).plans[0].footprint.resident_bytes
        return resident["optimizer_states"] + resident["projectors"]

    rank = break_even_rank(find_model(model).shape, Method(name=method), Method(name="adamw-8bit"))
    most = states("adamw-8bit", None)
    assert most < states(method, rank + 1)
    assert rank == 0 or states(method, rank) <= most
    assert (rank > 0) == (model == "llama-7b" or method == "galore-adamw-8bit")


def test_values_are_said_and_read_back() -> None:
    state = State().with_values("seq", (256, 1024)).with_values("keep_outputs", (True,))
    assert shown(BY_NAME["seq"], state) == ("256, 1,024", False)
    assert shown(BY_NAME["keep_outputs"], state) == ("yes", False)
    assert shown(BY_NAME["batch"], state) == ("1", True)
    assert shown(BY_NAME["gpus"], state) == ("9 cards", False)
    assert chosen(BY_NAME["methods"], replace(state, methods=("adamw",))) == ("adamw",)
    assert read(BY_NAME["seq"], "1_024, 2048") == (1024, 2048)
    assert read(BY_NAME["dropout"], "0.1") == (0.1,)
    assert said(("q_proj", "v_proj")) == "q_proj+v_proj"
    assert stepped(BY_NAME["models"], state, 1) is None
    with pytest.raises(InputError, match="others use"):
        read(BY_NAME["other_use"], "much")
