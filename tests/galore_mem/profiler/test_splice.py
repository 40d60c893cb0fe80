"""Steps laid in another order are what recording them in that order gives, and steps that do not fit are refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from estimators.workload import Workload

pytest.importorskip("torch")
pytest.importorskip("transformers")

from galore_mem.answers.steps import record_pieces, record_steps, steps_of
from galore_mem.profiler.recording import Recording
from galore_mem.profiler.splice import Unspliceable, splice

Small = Callable[..., Workload]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

RUNS: list[tuple[str, dict[str, Any], list[tuple[int, ...]]]] = [
    ("adamw", {"family": "tied"}, [(48, 64, 40, 64), (64, 40, 48, 40)]),
    ("sgd", {"zero_grad": "end", "padding": True, "keep_outputs": True}, [(40, 64, 48, 64)]),
    ("adamw-8bit", {"update": "per-layer", "checkpointing": "full"}, [(64, 40, 48, 40)]),
    ("sgd-momentum", {"grad_accumulation": 2, "attention": "eager", "precision": "amp-bf16"}, [(40, 64, 40)]),
    ("galore-adamw-8bit", {"update": "per-layer"}, [(48, 64, 40, 64)]),
    ("galore-adamw", {"implementation": "galore-torch", "precision": "fp32"}, [(64, 48, 64)]),
]


def history(recording: Recording) -> list[tuple[object, ...]]:
    """Every event with what it concerns: which storage by the order of births, bytes, category, window, iteration."""
    births: dict[int, int] = {}
    found: list[tuple[object, ...]] = []
    for begin, end, iteration, window in recording.stretches():
        for code in recording.events[begin:end]:
            life = recording.lives[abs(code) - 1]
            number = births.setdefault(abs(code), len(births))
            found.append((number, code > 0, life.nbytes, life.category, life.module, life.operator, window, iteration))
    return found


@pytest.mark.parametrize(("method", "settings", "orders"), RUNS)
def test_spliced_steps_are_steps_recorded_in_that_order(
    small: Small, method: str, settings: dict[str, Any], orders: list[tuple[int, ...]]
) -> None:
    workload = small(method, layers=1, **settings)
    kernel = "efficient" if workload.attention == "auto" else workload.attention
    runs = [steps_of(workload, order) for order in orders]
    pieces, _ = record_pieces(workload, kernel, {step for run in runs for step in run}, workspace_bytes=8 << 20)
    for run in runs:
        genuine = record_steps(workload, kernel, run, workspace_bytes=8 << 20)
        spliced = splice([pieces[step] for step in run])
        assert history(spliced) == history(genuine)
        assert spliced.borders == genuine.borders


def test_steps_whose_remains_differ_do_not_fit(small: Small) -> None:
    workload = small("sgd", layers=1)
    run = steps_of(workload, (48, 64))
    first, second = record_pieces(workload, "flash", set(run))[0].values()
    other = replace(second, incoming=(*second.incoming[:-1], ("activations", "mask", "ones", 64)))
    splice([first, second])
    with pytest.raises(Unspliceable) as caught:
        splice([first, other])
    assert caught.value.after == [("activations", "mask", "ones", 64)]
