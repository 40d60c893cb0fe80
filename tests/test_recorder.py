"""The witness itself: births, deaths, views, phases."""

from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch")

if TYPE_CHECKING:
    from tests.recorder import LiveBytes


def test_a_storage_counts_from_birth_to_death(live_bytes: "type[LiveBytes]") -> None:
    with live_bytes() as live:
        first = torch.ones(1000)
        after_first = live.now
        second = first * 2
        del first
        after_second = live.now
        del second
    assert live.total_bytes(after_first) == 4096
    assert live.total_bytes(after_second) == 4096
    assert live.at_peak() == {"unclaimed": 8192}
    assert live.total_bytes(live.now) == 0
    assert [gained for _, gained, _, _ in live.timeline()] == [4096, 4096, -4096, -4096]


def test_exact_bytes_when_not_aligned(live_bytes: "type[LiveBytes]") -> None:
    with live_bytes(align=False) as live:
        kept = torch.ones(3)
    assert live.at_peak() == {"unclaimed": kept.nbytes}


def test_a_view_adds_nothing_and_keeps_everything(live_bytes: "type[LiveBytes]") -> None:
    with live_bytes() as live:
        whole = torch.ones(1024, 2)
        view = whole[:1]
        del whole
        assert live.total_bytes(live.now) == 8192
        live.claim("projectors", [view])
    assert live.at_peak() == {"projectors": 8192}


def test_existing_tensors_in_place_work_and_phases(live_bytes: "type[LiveBytes]") -> None:
    weight = torch.ones(128)
    with live_bytes(weights=[weight]) as live:
        with live.phase("refresh"):
            torch.ones(1024).add_(1)
        with live.phase("step"):
            weight.add_(weight.sqrt())
    assert live.at_peak("refresh") == {"weights": 512, "unclaimed": 4096}
    assert live.at_peak("step") == {"weights": 512, "unclaimed": 512}
    assert live.at_peak(outside="refresh") == {"weights": 512, "unclaimed": 512}


def test_backward_is_seen(live_bytes: "type[LiveBytes]") -> None:
    weight = torch.ones(64, 64, requires_grad=True)
    with live_bytes(weights=[weight]) as live:
        (weight @ weight).sum().backward()
        live.claim("gradients", [weight.grad])
    assert live.by_category(live.now)["gradients"] == 16384
