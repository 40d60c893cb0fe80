"""Will this training run fit on that GPU, why, and what would make it fit?

Importing this package costs next to nothing: each public name is imported when it is first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from galore_mem.answers.explain import explain
    from galore_mem.answers.fit import fit
    from galore_mem.answers.plan import plan
    from galore_mem.answers.trace import trace
    from galore_mem.answers.trace_step import trace_step
    from galore_mem.profiler.profile import profile

__version__ = "0.1.0"
__all__ = ["explain", "fit", "plan", "profile", "trace", "trace_step"]

_ROOMS = {
    "explain": "galore_mem.answers.explain",
    "fit": "galore_mem.answers.fit",
    "plan": "galore_mem.answers.plan",
    "profile": "galore_mem.profiler.profile",
    "trace": "galore_mem.answers.trace",
    "trace_step": "galore_mem.answers.trace_step",
}
"""Public name -> module that holds it under the same name."""


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_ROOMS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
