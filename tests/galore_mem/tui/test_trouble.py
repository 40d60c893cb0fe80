"""Whatever goes wrong becomes a line in the app: never a traceback, and nothing is lost."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from galore_mem.answers.names import Card, NamedModel, resolve_model
from galore_mem.errors import GaloreMemError, NetworkError, UsageError
from galore_mem.installed import command
from galore_mem.tui import tasks
from galore_mem.tui.app import GaloreMemApp
from galore_mem.tui.messages import Chosen
from galore_mem.tui.saying import line_of
from galore_mem.tui.session import Session
from galore_mem.tui.start import app_of, start
from galore_mem.tui.state import FIRST_CARDS, State
from galore_mem.tui.tracing import Request, TraceError, Tracer
from galore_mem.tui.tracing_child import answer
from profiles.errors import InputError
from profiles.gpus import find_gpu

AppMaker = Callable[..., GaloreMemApp]
Settle = Callable[[Pilot[Any]], Awaitable[None]]
Script = Callable[[Pilot[Any]], Awaitable[None]]


def drive(app: GaloreMemApp, settle: Settle, script: Script, size: tuple[int, int] = (80, 24)) -> None:
    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await settle(pilot)
            await script(pilot)

    asyncio.run(run())


def messages(app: GaloreMemApp) -> str:
    return "\n".join(notification.message for notification in app._notifications)


def session() -> Session:
    return Session(local=lambda: (), find=lambda name: Card(gpu=find_gpu(name)))


@pytest.mark.parametrize(
    ("model", "gpus", "words", "model_then", "gpus_then"),
    [
        ("lama-7b", (), ("unknown model 'lama-7b'", "llama-7b"), "llama-7b", FIRST_CARDS),
        ("", ("4091",), ("4091",), "llama-7b", FIRST_CARDS),
        ("/no/such/config.json", ("h100", "nonsense-9000"), ("config.json", "nonsense-9000"), "llama-7b", ("h100",)),
    ],
)
def test_a_name_that_means_nothing_any_longer_is_told_in_the_app(
    model: str,
    gpus: tuple[str, ...],
    words: tuple[str, ...],
    model_then: str,
    gpus_then: tuple[str, ...],
    settle: Settle,
) -> None:
    app = app_of(model, gpus, fresh=True, path=None, session=session())

    async def script(pilot: Pilot[Any]) -> None:
        for word in words:
            assert word in messages(app)
        assert app.state.models == (model_then,)
        assert app.state.gpus == gpus_then
        assert len(app.board.rows) == 6

    drive(app, settle, script)


def test_a_model_of_the_hub_is_awaited_while_the_first_one_shows(settle: Settle) -> None:
    def slow(name: str) -> NamedModel:
        if name == "org/model":
            return replace(resolve_model("llama-60m"), source="the Hub")
        if name == "org/none":
            raise NetworkError("the Hub does not answer")
        return resolve_model(name)

    def awaiting(model: str) -> GaloreMemApp:
        found = Session(local=lambda: (), resolve=slow, find=lambda name: Card(gpu=find_gpu(name)))
        return app_of(model, (), fresh=True, path=None, session=found)

    app = awaiting("org/model")
    assert app.state.models == ("llama-7b",)

    async def script(pilot: Pilot[Any]) -> None:
        assert app.state.models == ("org/model",)
        assert app.board.rows[0].named.source == "the Hub"

    drive(app, settle, script)
    other = awaiting("org/none")

    async def refused(pilot: Pilot[Any]) -> None:
        assert other.state.models == ("llama-7b",)
        assert "the Hub does not answer" in messages(other)

    drive(other, settle, refused)


def test_a_right_command_line_comes_before_the_last_session(tmp_path: Path, settle: Settle) -> None:
    path = tmp_path / "tui.json"
    path.write_text(
        '{"schema": "galore-mem/tui/1", "models": ["llama-1b"], "words": "8bit", "settings": {"seq": [512]}}'
    )
    app = app_of("llama-3-8b", ("h100", "4090"), fresh=False, path=path, session=session())
    assert app.state.models == ("llama-3-8b",)
    assert (app.state.gpus, app.state.card) == (("h100", "4090"), "h100")
    assert app.state.values("seq") == (512,)
    assert app_of("", (), fresh=True, path=path, session=session()).state == State()
    assert app_of("", (), fresh=False, path=path, session=session()).state.models == ("llama-1b",)


def test_a_corrupt_state_is_told_and_kept_aside(tmp_path: Path, settle: Settle) -> None:
    path = tmp_path / "tui.json"
    path.write_text("{broken")
    app = app_of("", (), fresh=False, path=path, session=session())

    async def script(pilot: Pilot[Any]) -> None:
        assert "started afresh" in messages(app)
        assert "tui.json.unusable" in messages(app)
        await pilot.press("q")

    drive(app, settle, script)
    assert (tmp_path / "tui.json.unusable").read_text() == "{broken"
    assert '"llama-7b"' in path.read_text()


def test_a_tiny_terminal_and_a_storm_of_sizes_lose_nothing(make_app: AppMaker, settle: Settle) -> None:
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        await pilot.press("home", "space", "slash", *"8bit", "enter")
        before = app.state
        for size in [(20, 5), (1, 1), (200, 60), (59, 16), (60, 16), (110, 32), (300, 3), (3, 300), (80, 24)]:
            await pilot.resize_terminal(*size)
        await settle(pilot)
        assert not app.panes.workspace.is_small
        assert app.state == before
        assert app.panes.workspace.shows("table")

    drive(app, settle, script)


def test_started_in_a_tiny_terminal_it_says_what_it_needs(make_app: AppMaker, settle: Settle) -> None:
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        assert "20 x 5 is too small" in str(app.query_one("#too-small").render())
        await pilot.press("down", "space", "2", "3", "4", "5", "6", "1")
        await pilot.resize_terminal(80, 24)
        await settle(pilot)
        assert app.panes.workspace.shows("table")

    drive(app, settle, script, size=(20, 5))


def test_a_worker_that_fails_is_told_and_the_app_goes_on(
    make_app: AppMaker, settle: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("by nothing")

    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        monkeypatch.setattr(tasks, "explain", fails)
        monkeypatch.setattr(tasks, "curves_of", fails)
        await pilot.press("home", "3")
        await settle(pilot)
        assert "explaining a row failed" in messages(app)
        assert "plotting failed" in messages(app)
        assert "by nothing" in messages(app)
        await pilot.press("1", "space")
        assert len(app.board.marked) == 1

    drive(app, settle, script)


def test_rows_that_cannot_run_say_why(make_app: AppMaker, settle: Settle) -> None:
    state = State(methods=("galore-adamw", "adamw"), gpus=("v100-16gb", "4090"), card="v100-16gb")
    state = state.with_values("attention", ("flash",)).with_values("update", ("per-layer",))
    state = state.with_values("implementation", ("galore-torch",)).with_values("grad_accumulation", (4,))
    app = make_app(state)

    async def script(pilot: Pilot[Any]) -> None:
        for view in ("1", "2", "3", "4", "5"):
            await pilot.press("home", view)
            await settle(pilot)
        detail = app.panes.workspace.pane("detail")
        assert "impossible under galore-torch" in " ".join(detail.plain.split())  # type: ignore[attr-defined]
        await pilot.press("1", "end", "5")
        await settle(pilot)
        assert "flash" in detail.plain  # type: ignore[attr-defined]

    drive(app, settle, script)


def test_too_many_rows_leave_everything_as_it_was(make_app: AppMaker, settle: Settle) -> None:
    app = make_app()

    async def script(pilot: Pilot[Any]) -> None:
        app.post_message(Chosen("seq", tuple(range(1, 500))))
        await pilot.pause()
        assert "too many" in messages(app)
        assert app.state.values("seq") == ()
        app.post_message(Chosen("seq", (-1,)))
        await pilot.pause()
        assert "--seq -1" in messages(app)

    drive(app, settle, script)


def request() -> Request:
    from galore_mem.tui.rows import rows_of

    row = rows_of(State(methods=("adamw",)), {"llama-7b": resolve_model("llama-7b")})[0]
    return Request(key=row.key, name=row.name, workload=row.workload, gpu="4090", other_use_bytes=0)


@pytest.mark.parametrize(
    ("child", "word"),
    [
        ('print(\'{"error": "no torch here; run: pip install X"}\')', "pip install X"),
        ("import sys; sys.exit('it broke')", "it broke"),
        ("import os; os.kill(os.getpid(), 9)", "ended without an answer"),
        ("print('{}')", "footprint"),
        ('print(\'{"footprint": {"moments": 3}}\')', "footprint"),
        ("print('not json')", "ended without an answer"),
    ],
)
def test_a_trace_that_fails_says_why(child: str, word: str) -> None:
    with pytest.raises(GaloreMemError) as caught:
        Tracer(lambda: [sys.executable, "-c", child]).run(request(), lambda stage: None)
    line = line_of(caught.value, "a trace")
    assert word in line
    assert "\n" not in line


def test_a_failed_trace_is_told_in_the_app(make_app: AppMaker, settle: Settle) -> None:
    app = make_app(tracer=Tracer(lambda: [sys.executable, "-c", 'print(\'{"error": "no module torch"}\')']))

    async def script(pilot: Pilot[Any]) -> None:
        await pilot.press("t")
        await settle(pilot)
        assert "no module torch" in messages(app)
        assert app.results.opened == []

    drive(app, settle, script)


def test_a_missing_extra_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("galore_mem.answers.trace.trace", missing)
    assert f"run: {command('train')}" in answer(request())["error"]


def test_an_export_that_cannot_be_written_is_said(make_app: AppMaker, settle: Settle, tmp_path: Path) -> None:
    from galore_mem.tui.exports import export

    app = make_app(State(gpus=("4090",)))

    async def script(pilot: Pilot[Any]) -> None:
        app.tasks.run("export", lambda: export(tmp_path / "no" / "a.html", app.board.rows[:1], app.board.cards, ()))
        await settle(pilot)
        assert "there is no folder" in messages(app)
        assert list(tmp_path.iterdir()) == []

    drive(app, settle, script)


def test_without_a_terminal_there_is_one_line() -> None:
    with pytest.raises(UsageError, match="needs a terminal"):
        start("", (), fresh=True)


@pytest.mark.parametrize(
    ("model", "gpus", "said"),
    [
        ("lama-7b", (), "unknown model 'lama-7b'"),
        ("4090", (), "'4090' is a GPU, where a model is asked for"),
        ("deepseek-v2-lite", (), "run: galore-mem trace deepseek-v2-lite"),
        ("./nosuch/config.json", (), "no file"),
        ("", ("h100", "nonsense-9000"), "unknown GPU 'nonsense-9000'"),
        ("llama-7b", ("4090,3090",), "put blanks between names: 4090 3090"),
    ],
)
def test_names_that_mean_nothing_are_refused_before_the_app_starts(
    model: str, gpus: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line: the app could only show another model, or other cards, in their place."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(GaloreMemApp, "run", lambda _: pytest.fail("the app was started"))
    with pytest.raises((InputError, GaloreMemError), match=said):
        start(model, gpus, fresh=True)


def test_every_error_is_one_line() -> None:
    assert line_of(InputError("a", "b\nc", "d"), "x") == "a: b c; d"
    assert line_of(TraceError("a"), "x") == "a"
    assert line_of(ModuleNotFoundError("No module", name="torch.cuda"), "a trace").startswith("a trace needs packages")
    assert line_of(FileNotFoundError(2, "No such file", "f"), "x") == "No such file: f"
    assert "ValueError: odd" in line_of(ValueError("odd"), "x")


def test_torch_is_not_imported_until_a_trace_is_asked_for_and_then_elsewhere() -> None:
    code = """
import asyncio, sys
from galore_mem.tui.app import GaloreMemApp
async def run():
    app = GaloreMemApp()
    async with app.run_test(size=(200, 60)) as pilot:
        await pilot.press("2", "3", "space", "4")
        await pilot.pause(0.3)
asyncio.run(run())
heavy = {"torch", "transformers", "plotly", "cyclopts", "bitsandbytes", "numpy"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""
    root = str(Path(__file__).resolve().parents[3])
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
