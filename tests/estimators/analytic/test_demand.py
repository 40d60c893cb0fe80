"""Demand, by the closed form and by a run's written history."""

from dataclasses import replace

import pytest

from estimators.analytic.cards import USUAL
from estimators.analytic.course import courses_of
from estimators.analytic.demand import Demand
from estimators.analytic.estimate import outliner_of
from estimators.analytic.history import written_history
from estimators.analytic.tensors import rounded
from estimators.workload import Batch, Method, Workload
from profiles.models import find_model

LLAMA = find_model("llama-60m").shape


def odd(size: int) -> Batch:
    """A batch in which no two sizes are equal by chance."""
    return Batch(micro_batch_size=size, sequence_length=499)


RUNS = {
    "whole": Workload(model=LLAMA, batch=odd(8)),
    "per-layer": Workload(model=LLAMA, method=Method(update="per-layer"), batch=odd(8)),
    "checkpointing": Workload(model=LLAMA, batch=odd(31), checkpointing="full"),
    "autocast": Workload(model=LLAMA, batch=odd(4), precision="amp-bf16"),
    "tied": Workload(model=find_model("qwen3-0.6b").shape, batch=odd(3), checkpointing="full"),
    "steps": Workload(
        model=LLAMA,
        method=Method(name="adafactor", update="per-layer"),
        batch=odd(8),
    ),
}


def demand_of(workload: Workload) -> int:
    outliner = outliner_of(workload, None)
    return Demand(workload, outliner).of(outliner.course)


def counted(workload: Workload) -> int:
    """Of each size in a written history the most that live at once."""
    codes, sizes, *_ = written_history(workload)
    lives, most = dict[int, int](), dict[int, int]()
    for code in codes:
        size = rounded(sizes[abs(code)])
        lives[size] = lives.get(size, 0) + (1 if code > 0 else -1)
        most[size] = max(most.get(size, 0), lives[size])
    return sum(size * count for size, count in most.items())


@pytest.mark.parametrize("name", RUNS)
def test_it_is_what_a_written_history_shows(name: str) -> None:
    """Sizes that happen to be equal in a batch are told apart here, so that it may be a little more."""
    assert counted(RUNS[name]) * 0.98 <= demand_of(RUNS[name]) <= counted(RUNS[name]) * 1.1


@pytest.mark.parametrize("name", RUNS)
def test_it_is_above_the_live_peak(name: str) -> None:
    assert demand_of(RUNS[name]) >= outliner_of(RUNS[name], None).peak_bytes


def test_repeated_layers_count_as_often_as_they_are_there() -> None:
    deeper = replace(RUNS["whole"], model=replace(LLAMA, num_hidden_layers=40))
    assert counted(deeper) * 0.98 <= demand_of(deeper) <= counted(deeper) * 1.1


def test_one_configuration_serves_every_batch() -> None:
    workload = RUNS["whole"]
    demand, courses = Demand(workload, outliner_of(workload, None)), courses_of(workload, "flash", USUAL)
    for size in (2, 8, 31):
        batch = replace(workload.batch, micro_batch_size=size)
        assert demand.of(courses.of(batch)) == demand_of(replace(workload, batch=batch))


def test_loading_and_several_gpus_and_evaluation_ask_for_more() -> None:
    workload = RUNS["whole"]
    for more in ({"resume": "device"}, {"data_parallel": 2}, {"eval_batch": 4}):
        assert demand_of(replace(workload, **more)) > demand_of(workload)
