"""How quick `galore-mem tui` is: start to first paint, key to repaint with many rows and cards, memory.

    python benchmarks/tui_speed.py [ROUNDS]

Keys go to an app without a terminal (as Textual's pilot drives it), 200 x 60, with over 200 configurations on 30 cards.
From a key to the next update that the compositor writes is what a person waits for; `settled` is when every figure that
a worker computes is on the screen. Process time is this process's own, so that a busy machine does not count; wall time
is beside. The exit code is 1 if a median of process time is above 50 ms.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from galore_mem.answers.catalogue import list_gpus
from galore_mem.answers.names import Card
from galore_mem.tui.app import GaloreMemApp
from galore_mem.tui.session import Session
from galore_mem.tui.state import State
from profiles.gpus import find_gpu

ROOT = Path(__file__).resolve().parents[1]
WANTED_MS = 50.0
SIZE = (200, 60)
FIRST_PAINT = """
import sys, time
from galore_mem.tui.app import GaloreMemApp
from galore_mem.tui.workspace import Workspace
class Timed(GaloreMemApp):
    def on_mount(self):
        super().on_mount()
        self.call_after_refresh(self.call_after_refresh, self.exit)
Timed().run(headless=True, size=(120, 40))
print(len([name for name in sys.modules if name.split(".")[0] in ("torch", "transformers", "plotly")]))
"""
KEYS = (
    ("down", "the cursor goes down"),
    ("space", "a row is marked"),
    ("2", "the matrix gets the keys"),
    ("right", "another card"),
    ("s", "sorted by another column"),
    ("6", "the settings get the keys"),
)
STEPS = (("batch", "batch doubled"), ("checkpointing", "checkpointing on"), ("loss", "loss chunked"))


def many_rows() -> State:
    """Over 200 configurations on 30 cards."""
    names = tuple(gpu.aliases[0] for gpu in list_gpus() if gpu.vendor == "nvidia")[:30]
    state = State(gpus=names, card=names[13], methods=("adamw", "galore-adamw", "galore-adamw-8bit"))
    state = state.with_values("seq", (256, 512, 1024, 2048)).with_values("batch", (1, 2, 4))
    return state.with_values("rank", (64, 128, 256, 512)).with_values("update", ("whole", "per-layer"))


async def settle(app: GaloreMemApp) -> None:
    """Until no worker runs."""
    quiet = 0
    while quiet < 3:
        await asyncio.sleep(0.005)
        busy = any(not worker.is_finished for worker in app.workers) or app.later.waiting - {"save"}
        quiet = 0 if busy or app.session.figures.asked else quiet + 1


async def measured(rounds: int) -> dict[str, list[tuple[float, float, float]]]:
    """For every key: process seconds to the repaint, wall seconds to it, wall seconds until settled."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    app = GaloreMemApp(many_rows(), session=Session(local=lambda: (), find=lambda name: Card(gpu=find_gpu(name))))
    async with app.run_test(size=SIZE) as pilot:
        await settle(app)
        print(f"{len(app.board.rows)} configurations on {len(app.board.cards)} cards, {SIZE[0]} x {SIZE[1]}")
        for _ in range(rounds):
            for key, label in KEYS:
                found.setdefault(label, []).append(await one(app, key))
            for name, label in STEPS:
                setting = app.query_one(f"#set-{name}")
                app.screen.set_focus(setting)
                await pilot.pause()
                found.setdefault(label, []).append(await one(app, "right"))
                await one(app, "left" if name == "batch" else "backspace")
            app.panes.workspace.show("table")
            await settle(app)
    return found


async def one(app: GaloreMemApp, key: str) -> tuple[float, float, float]:
    """Press a key, and wait for the screen's next update."""
    from textual import events

    painted = asyncio.Event()
    times: list[tuple[float, float]] = []
    display = app._display

    def watched(screen: object, renderable: object) -> None:
        display(screen, renderable)  # type: ignore[arg-type]
        if not times:
            times.append((time.process_time(), time.perf_counter()))
            painted.set()

    app._display = watched  # type: ignore[assignment, method-assign]
    begun = time.process_time(), time.perf_counter()
    app.post_message(events.Key(key, key if len(key) == 1 else None))
    await asyncio.wait_for(painted.wait(), 20)
    app._display = display  # type: ignore[method-assign]
    await settle(app)
    return times[0][0] - begun[0], times[0][1] - begun[1], time.perf_counter() - begun[1]


def start_seconds() -> tuple[float, str]:
    """A whole process from its start to the first paint and out again; and how many heavy modules it imported."""
    begun = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", FIRST_PAINT], env=environment, capture_output=True, text=True, check=True
    )
    return time.perf_counter() - begun, done.stdout.strip().splitlines()[-1]


def resident_mib() -> float:
    """This process's resident memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    before = resident_mib()
    found = asyncio.run(measured(rounds))
    worst = 0.0
    print(f"{'median of ' + str(rounds) + ', ms':<30}{'process':>9}{'wall':>9}{'settled':>9}")
    for label, values in found.items():
        process, wall, settled = (statistics.median(column) * 1e3 for column in zip(*values, strict=True))
        worst = max(worst, process)
        print(f"{label:<30}{process:>9.1f}{wall:>9.1f}{settled:>9.1f}")
    print(f"memory: {resident_mib():.0f} MiB resident ({before:.0f} before the app)")
    starts = [start_seconds() for _ in range(min(rounds, 5))]
    print(f"start to first paint and exit: {statistics.median(start for start, _ in starts):.2f} s wall, whole process")
    print(f"torch, transformers or plotly modules imported: {starts[0][1]}")
    return 0 if worst <= WANTED_MS else 1


if __name__ == "__main__":
    sys.exit(main())
