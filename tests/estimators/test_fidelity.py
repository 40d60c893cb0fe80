"""The order of methods, and the share of coordinates that an update can move along."""

import pytest

from estimators.fidelity import fidelity
from estimators.workload import METHODS, Method
from profiles.models import find_model

SEVEN = find_model("llama-7b").shape


def key(name: str, rank: int | None = None) -> tuple[int, float, int]:
    return fidelity(SEVEN, Method(name=name, rank=rank)).key


def test_the_order_is_the_papers() -> None:
    order = [key("adamw"), key("adamw-8bit"), key("galore-adamw", 1024), key("galore-adamw-8bit", 1024)]
    order += [key("galore-adamw", 512), key("adafactor"), key("relora", 1024), key("lora", 1024), key("low-rank", 1024)]
    assert order == sorted(order)
    assert len(set(order)) == len(order)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_kind(name: str) -> None:
    found = fidelity(SEVEN, Method(name=name, rank=None if METHODS[name].parameterisation == "full" else 128))
    assert 0 < found.share <= 1
    assert (found.share == 1) == (METHODS[name].parameterisation == "full")


def test_the_share_counts_coordinates() -> None:
    layer = 4 * 4096 * 1024 + 3 * 11008 * 1024
    others = 2 * 32000 * 4096 + 65 * 4096
    share = fidelity(SEVEN, Method(name="galore-adamw", rank=1024)).share
    assert share == pytest.approx((32 * layer + others) / 6_738_415_616)
