"""Fixtures that several rooms share."""

import os
import signal
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.recorder import LiveBytes


# Every worker of a parallel run has a core, not all of them; torch reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test asks the real Hub; those about it bring a server of their own.
os.environ["HF_HUB_OFFLINE"] = "1"

# What was calibrated on the machine that runs the tests is no part of what they expect.
os.environ["GALORE_MEM_CALIBRATION"] = ""

# What a shell starts in the background inherits SIGINT as ignored; tests that interrupt expect a terminal's.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# An example's time says more about the machine and its load than about the code.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a meant change of output be recorded."""
    parser.addoption("--update-golden", action="store_true", help="record the outputs in tests/golden anew")


@pytest.fixture
def live_bytes() -> "type[LiveBytes]":
    """The recorder of living storages; `tests/recorder.py` says how to use it. Skips where torch is not installed."""
    pytest.importorskip("torch")
    name = "galore_mem_tests_recorder"
    if name not in sys.modules:
        spec = spec_from_file_location(name, Path(__file__).with_name("recorder.py"))
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    recorder: type[LiveBytes] = sys.modules[name].LiveBytes
    return recorder


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> "Callable[..., Any]":
    """Puts a GPU made of CPU tensors in the place of the machine's; `tests/fake_gpu.py` says what it can."""
    pytest.importorskip("torch")
    name = "galore_mem_tests_fake_gpu"
    if name not in sys.modules:
        spec = spec_from_file_location(name, Path(__file__).with_name("fake_gpu.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])

    def place(**words: Any) -> Any:  # noqa: ANN401
        gpu = sys.modules[name].FakeGpu(**words)
        monkeypatch.setattr("galore_mem.profiler.cuda.Gpu", lambda: gpu)
        return gpu

    return place
