"""What an allocation's stack tells: the program's own place, and the pass of training that it belongs to.

A stack with Python frames names the optimizer's files, autograd's `backward` or a module's `forward`. On a GPU autograd
runs backward in a thread of its own, without a Python stack: in a history that has stacks, an allocation without one is
taken for backward's.
"""

from dataclasses import dataclass
from typing import Any

from galore_mem.tapes.checks import refuse

_MOST_FRAMES = 500
_MOST_PLACES = 6
_OPTIMIZERS = ("/torch/optim/", "/bitsandbytes/optim/", "/galore_torch/", "/galore_mem/optim/", "/apex/optimizers/")
_ENGINE = "torch::autograd::Engine"
_LOSSES = frozenset({"cross_entropy", "nll_loss", "mse_loss", "fixed_cross_entropy", "ForCausalLMLoss"})
_FORWARDS = frozenset({"forward", "_call_impl", "_wrapped_call_impl"})
_NOTES = frozenset({"category", "phase"})
"""What `memory_viz` writes below an operator's frame, in place of a file and without a line."""
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stack:
    """What is known of a stack."""

    site: str = ""
    """The innermost frame outside torch."""
    path: str = ""
    """The program's own functions, outermost first."""
    phase: str = ""
    category: str = ""
    """As a snapshot of ours notes it."""
    empties: int = -1
    """1 where it comes from `empty_cache`, 0 elsewhere, -1 without a stack."""


NOWHERE = Stack()
UNSEEN = Stack(phase="backward")
"""Of allocations without a stack, where others have one."""
NO_FRAMES: tuple[()] = ()
"""What is left of an empty list of frames."""


class Stacks:
    """What lists of frames tell; equal answers are one object."""

    def __init__(self) -> None:
        self._frames: dict[tuple[str, str, int], tuple[str, str, bool]] = {}
        self._kept: list[Any] = []
        self._lists: dict[int, Stack] = {}
        self._known: dict[tuple[str, str, str, str, bool], Stack] = {}

    def of(self, frames: object) -> Stack:
        """What the `frames` of an entry tell, which torch shares between entries: each list is looked at once.

        Raises:
            Refusal: a frame is not what torch writes.
        """
        if type(frames) is Stack:
            return frames
        if type(frames) is not list:
            return NOWHERE
        found = self._lists.get(id(frames))
        if found is None:
            found = self._lists[id(frames)] = self.read(frames)
            self._kept.append(frames)
        return found

    def read(self, frames: list[Any]) -> Stack:
        """What a list of frames tells.

        Raises:
            Refusal: a frame is not what torch writes.
        """
        places: list[str] = []
        phases: set[str] = set()
        notes: dict[str, str] = {}
        maker = ("", "")
        empties = False
        for frame in frames[:_MOST_FRAMES]:
            if type(frame) is not dict:
                refuse("a frame is not a dict")
            name, filename, line = frame.get("name"), frame.get("filename"), frame.get("line")
            if type(name) is not str or type(filename) is not str:
                continue
            if filename in _NOTES and line == 0:
                notes[filename] = name
                continue
            maker = maker if any(maker) else (name, filename)
            key = name, filename, line if type(line) is int else 0
            found = self._frames.get(key)
            if found is None:
                found = self._frames[key] = _looked_at(*key)
            place, phase, is_empty_cache = found
            phases.add(phase)
            empties = empties or is_empty_cache
            if place:
                places.append(place)
        path = list(dict.fromkeys(reversed([_function(place) for place in places])))
        site, way = places[0] if places else "", " > ".join(path[-_MOST_PLACES:]) if len(path) > 1 else ""
        innermost = next((phase for phase in _ORDER if phase in phases), "")
        if notes:
            (site, way), innermost = maker, notes.get("phase", "")
        answer = (site, way, innermost, notes.get("category", ""), empties)
        stack = self._known.get(answer)
        if stack is None:
            site, way, phase, category, _ = answer
            stack = Stack(site=site, path=way, phase=phase, category=category, empties=int(empties))
            self._known[answer] = stack
        return stack


def _looked_at(name: str, filename: str, line: int) -> tuple[str, str, bool]:
    """(place in the program if it is one, phase that it tells of, whether it empties the cache)."""
    filename = filename.replace("\\", "/")
    is_own = filename.endswith(".py") and "/torch/" not in filename
    empties = "empty_cache" in name or "emptyCache" in name
    return _place(name, filename, line) if is_own else "", _phase(name, filename), empties


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


def _place(name: str, filename: str, line: int) -> str:
    return f"{filename.rsplit('/', 1)[-1][:80]}:{line} {name[:80]}"


def _function(place: str) -> str:
    """A place without its line: many lines of one function are one part of the tree."""
    file, _, rest = place.partition(":")
    return f"{file} {rest.partition(' ')[2]}"
