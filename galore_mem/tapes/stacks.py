"""What an allocation's stack tells: the program's own place, and the pass of training that it belongs to.

A stack with Python frames names the optimizer's files, autograd's `backward` or a module's `forward`. On a GPU autograd
runs backward in a thread of its own, without a Python stack: in a history that has stacks, an allocation without one is
taken for backward's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from galore_mem.tapes.checks import refuse

_MOST_FRAMES = 500
_MOST_PLACES = 6
_OPTIMIZERS = ("/torch/optim/", "/bitsandbytes/optim/", "/galore_torch/", "/galore_mem/optim/", "/apex/optimizers/")
_ENGINE = "torch::autograd::Engine"
_LOSSES = frozenset({"cross_entropy", "nll_loss", "mse_loss", "fixed_cross_entropy", "ForCausalLMLoss"})
_FORWARDS = frozenset({"forward", "_call_impl", "_wrapped_call_impl"})
_ORDER = ("step", "backward", "loss", "forward")
"""The innermost phase of those that a stack tells of comes first."""


class Names:
    """Texts, numbered; 0 is the empty one."""

    def __init__(self) -> None:
        self.texts = [""]
        self._numbers = {"": 0}

    def of(self, text: str) -> int:
        """The number of a text."""
        number = self._numbers.get(text)
        if number is None:
            number = self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return number


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """What is known of a stack; texts by their number."""

    site: int = 0
    """The innermost frame outside torch."""
    path: int = 0
    """The program's own functions, outermost first."""
    phase: int = 0
    empties: int = -1
    """1 where it comes from `empty_cache`, 0 elsewhere, -1 without a stack."""


class Stacks:
    """Stacks are shared between entries, so each is looked at once."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._seen: dict[int, Stack] = {}
        self._kept: list[Any] = []

    def of(self, frames: object) -> Stack:
        """What a list of frames tells.

        Raises:
            Refusal: a frame is not what torch writes.
        """
        found = self._seen.get(id(frames))
        if found is None:
            if type(frames) is not list:
                return Stack()
            found = self._seen[id(frames)] = self._read(frames[:_MOST_FRAMES])
            self._kept.append(frames)
        return found

    def _read(self, frames: list[Any]) -> Stack:
        places: list[str] = []
        phases: set[str] = set()
        empties = False
        for frame in frames:
            if type(frame) is not dict:
                refuse("a frame is not a dict")
            name, filename = frame.get("name"), frame.get("filename")
            if type(name) is not str or type(filename) is not str:
                continue
            empties = empties or "empty_cache" in name or "emptyCache" in name
            filename = filename.replace("\\", "/")
            phases.add(_phase(name, filename))
            if filename.endswith(".py") and "/torch/" not in filename:
                places.append(_place(name, filename, frame))
        path = list(dict.fromkeys(reversed([_function(place) for place in places])))
        return Stack(
            site=self._names.of(places[0] if places else ""),
            path=self._names.of(" > ".join(path[-_MOST_PLACES:]) if len(path) > 1 else ""),
            phase=self._names.of(next((phase for phase in _ORDER if phase in phases), "")),
            empties=int(empties),
        )


def _phase(name: str, filename: str) -> str:
    if any(part in filename for part in _OPTIMIZERS):
        return "step"
    if name.startswith(_ENGINE) or name == "_engine_run_backward" or filename.endswith("/torch/_tensor.py"):
        return "backward"
    if name in _LOSSES:
        return "loss"
    if "/torch/nn/modules/" in filename and name in _FORWARDS:
        return "forward"
    return ""


def _place(name: str, filename: str, frame: Mapping[Any, Any]) -> str:
    line = frame.get("line")
    base = filename.rsplit("/", 1)[-1]
    return f"{base[:80]}:{line if type(line) is int else 0} {name[:80]}"


def _function(place: str) -> str:
    """A place without its line: many lines of one function are one part of the tree."""
    file, _, rest = place.partition(":")
    return f"{file} {rest.partition(' ')[2]}"
