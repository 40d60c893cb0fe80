"""An app that depends on nothing of this machine: no GPU, no saved state, no clock."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.worker import WorkerState

from galore_mem.answers.names import Card, NamedModel, resolve_model
from galore_mem.errors import NetworkError, NoDeviceError
from galore_mem.tui.app import GaloreMemApp
from galore_mem.tui.session import Session, may_ask_the_network
from galore_mem.tui.state import State
from galore_mem.tui.tracing import Tracer
from profiles.gpus import find_gpu

BUSY = (WorkerState.PENDING, WorkerState.RUNNING)


def near(name: str) -> NamedModel:
    """Models of the catalogue and of paths; the Hub does not answer."""
    if may_ask_the_network(name):
        raise NetworkError(f"the Hub does not answer for {name}", "", "give a path")
    return resolve_model(name)


AppMaker = Callable[..., GaloreMemApp]


def no_gpu() -> tuple[Card, ...]:
    raise NoDeviceError("this machine has no NVIDIA driver", "", "name a card")


async def settle(pilot: Pilot[Any]) -> None:
    """Wait until every worker has ended and everything it said is drawn."""
    app = pilot.app
    assert isinstance(app, GaloreMemApp)
    quiet = 0
    for _ in range(1000):
        await pilot.pause()
        waits = app.later.waiting - {"save"}
        is_busy = any(worker.state in BUSY for worker in app.workers) or bool(waits) or app.session.figures.asked
        quiet = 0 if is_busy else quiet + 1
        if quiet == 3:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the app did not come to rest")


@pytest.fixture(name="settle")
def _settle() -> Callable[[Pilot[Any]], Awaitable[None]]:
    return settle


@pytest.fixture
def make_app() -> AppMaker:
    def make(state: State | None = None, **words: Any) -> GaloreMemApp:  # noqa: ANN401
        words.setdefault("session", Session(local=no_gpu, resolve=near, find=lambda name: Card(gpu=find_gpu(name))))
        words.setdefault("tracer", Tracer(lambda: ["false"]))
        return GaloreMemApp(state or State(), **words)

    return make
