"""What a trace needs is asked for before anything is built: packages and memory, one clear line each."""

import sys
from typing import Any

import pytest

from galore_mem.answers.needs import free_bytes, require_memory, require_packages
from galore_mem.answers.settings import Settings, workloads
from galore_mem.errors import GaloreMemError, MissingExtraError
from profiles.models import find_model

LLAMA = find_model("llama-7b").shape
NEEDS: list[tuple[str, dict[str, Any], str, str]] = [
    ("adamw", {}, "torch", "galore-mem[train]"),
    ("adamw", {}, "transformers", "galore-mem[train]"),
    ("adamw-8bit", {}, "bitsandbytes", "galore-mem[train]"),
    ("galore-adamw-8bit", {}, "bitsandbytes", "galore-mem[train]"),
    ("lora", {}, "peft", "galore-mem[test]"),
    ("galore-adamw", {"implementation": "galore-torch"}, "galore_torch", "galore-mem[test]"),
]


@pytest.mark.parametrize(("method", "settings", "module", "extra"), NEEDS)
def test_missing_package_is_named_with_what_brings_it(
    method: str, settings: dict[str, Any], module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from galore_mem.answers.trace import trace

    (workload,) = workloads(LLAMA, (method,), Settings(**settings))
    monkeypatch.setattr("galore_mem.installed._source", lambda: ("", False))
    for needed in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, needed, sys)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError) as caught:
        trace(workload)
    assert caught.value.why == f"no module {module}"
    assert caught.value.fix == f"run: pip install '{extra}'"


def test_nothing_else_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for needed in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, needed, sys)
    for other in ("bitsandbytes", "peft", "galore_torch"):
        monkeypatch.setitem(sys.modules, other, None)
    (workload,) = workloads(LLAMA, ("galore-adamw",), Settings())
    require_packages(workload)


def test_too_little_memory_is_said_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("galore_mem.answers.needs._held_bytes", lambda column: 0)
    (workload,) = workloads(LLAMA, ("adamw",), Settings())
    with pytest.raises(GaloreMemError, match=r"takes about \d+ MiB of host memory\. 0 MiB are free") as caught:
        require_memory(workload, available_bytes=0)
    assert caught.value.exit_code == 2
    require_memory(workload, available_bytes=4 << 30)
    monkeypatch.setattr("galore_mem.answers.needs._held_bytes", lambda column: 4 << 30)
    require_memory(workload, available_bytes=0)


def test_free_memory_is_read_from_the_system() -> None:
    found = free_bytes()
    if sys.platform != "linux":
        pytest.skip("Linux says it under /proc")
    assert found is not None
    assert 0 < found < 1 << 50


def test_limit_of_address_space_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1 << 20, 1 << 20))
    assert free_bytes() == 0
