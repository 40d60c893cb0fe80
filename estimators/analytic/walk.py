"""Walking through an optimizer step, statement by statement, and remembering the largest moment of each phase."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from estimators.analytic.tensors import Tensors, rounded

StepPhase = Literal["refresh", "step"]
Pass = Literal["only", "opening", "middle", "closing"]
"""Which backward pass of a step it is: the only one, or of an accumulation the first, one between, or the last."""
InsideSvd = Callable[[int, int], int]
STEP_CATEGORIES = ("gradients", "optimizer_states", "projectors", "weights", "temporaries")
"""Of weights only what a step has beside those that were there before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMoment:
    """The largest moment inside one phase of an optimizer step."""

    phase: StepPhase
    by_category: Mapping[str, int]
    """Live bytes, each tensor rounded to 512, of gradients, optimizer_states, projectors and temporaries.

    Weights (but for a copy that becomes one), buffers and whatever else lives across the step are not in it; categories
    that are zero are left out.
    """

    @property
    def live_bytes(self) -> int:
        """All categories together."""
        return sum(self.by_category.values())


class Walk:
    """What lives while an optimizer's code runs, kept by the names that its code gives to tensors.

    A tensor held in a variable lives until the variable is assigned again, and the new value exists before the old one
    dies: that is why a Python loop over parameters carries tensors of one parameter into the next.

    Args:
        inside_svd: bytes that the decomposition of a matrix of these rows and columns holds inside the library.
    """

    def __init__(self, *, inside_svd: InsideSvd | None = None) -> None:
        self.phase: StepPhase = "step"
        self._inside_svd = inside_svd
        self._live = dict.fromkeys(STEP_CATEGORIES, 0)
        self._total = 0
        self._variables: dict[str, int] = {}
        self._shared: set[str] = set()
        self._peaks: dict[StepPhase, tuple[int, dict[str, int]]] = {}

    def enter(self, phase: StepPhase) -> None:
        """Go on in another phase."""
        self.phase = phase
        self._note()

    def take(self, category: str, nbytes: int, count: int = 1) -> None:
        """`count` tensors are born that outlive the step."""
        self._add(category, rounded(nbytes) * count)
        self._note()

    def take_states(self, states: Iterable[Tensors], *, count: int = 1) -> None:
        """States of `count` parameters are born, those on the device."""
        for state in states:
            if not state.on_host:
                self.take(state.category, state.nbytes, count)

    def take_once(self, shared: Tensors) -> None:
        """A tensor that all parameters share is born, unless it lives already."""
        if shared.name not in self._shared:
            self._shared.add(shared.name)
            self.take_states((shared,))

    @property
    def shared_made(self) -> int:
        """How many of the tensors that all parameters share live."""
        return len(self._shared)

    def give(self, category: str, nbytes: int, count: int = 1) -> None:
        """`count` such tensors die."""
        self._add(category, -rounded(nbytes) * count)

    def replace_gradient(self, old_bytes: int, new_bytes: int) -> None:
        """A gradient is cast: the new one is there before the old one dies."""
        self.take("gradients", new_bytes)
        self.give("gradients", old_bytes)

    def hold(self, variable: str, nbytes: int) -> None:
        """Assign a new temporary to a variable; what it held dies afterwards."""
        size = rounded(nbytes)
        self._add("temporaries", size)
        self._note()
        self._add("temporaries", -self._variables.get(variable, 0))
        self._variables[variable] = size

    def drop(self, *variables: str) -> None:
        """Variables let go of their temporaries, if they hold any."""
        for variable in variables:
            self._add("temporaries", -self._variables.pop(variable, 0))

    def keep_as_gradient(self, variable: str) -> None:
        """What a variable holds becomes the parameter's gradient, and outlives the variable."""
        size = self._variables.pop(variable, 0)
        self._add("temporaries", -size)
        self._add("gradients", size)

    def hold_weight(self, variable: str, nbytes: int) -> None:
        """Assign a copy of the weight, which will take its place, to a variable."""
        self.take("weights", nbytes)

    def keep_as_weight(self, variable: str, nbytes: int) -> None:
        """What a variable holds, a copy of the weight, becomes the weight; the old one dies."""
        self.give("weights", nbytes)

    def move(self, source: str, target: str) -> None:
        """Assign what one variable holds to another, whose old value dies."""
        self.drop(target)
        self._variables[target] = self._variables.pop(source)

    def brief(self, *sizes: int) -> None:
        """Temporaries that live together, unnamed, and die at once."""
        size = sum(rounded(nbytes) for nbytes in sizes)
        self._add("temporaries", size)
        self._note()
        self._add("temporaries", -size)

    def decompose(self, rows: int, columns: int) -> None:
        """The largest moment inside an SVD, its results included."""
        if self._inside_svd is not None:
            self.brief(self._inside_svd(rows, columns))

    def branch(self) -> "Walk":
        """An empty walk that goes on from here, so that `join` can repeat it wherever the same happens again."""
        branch = Walk(inside_svd=self._inside_svd)
        branch.phase, branch._shared = self.phase, set(self._shared)
        return branch

    def join(self, branch: "Walk") -> None:
        """What happened in a branch happens here; it has begun in the phase that it ended in."""
        for phase, (total, live) in branch._peaks.items():
            best = self._peaks.get(phase)
            if best is None or self._total + total > best[0]:
                here = {category: nbytes + live[category] for category, nbytes in self._live.items()}
                self._peaks[phase] = (self._total + total, here)
        for category, nbytes in branch._live.items():
            self._live[category] += nbytes
        self._total += branch._total
        self._shared |= branch._shared

    def totals(self) -> dict[str, int]:
        """Live bytes by category now."""
        return dict(self._live)

    def repeat(self, since: Mapping[str, int], times: int) -> None:
        """What changed since then happens `times` more."""
        for category, before in since.items():
            self._add(category, (self._live[category] - before) * times)

    def moments(self) -> tuple[StepMoment, ...]:
        """The largest moment of each phase that was entered, refresh first."""
        return tuple(
            StepMoment(phase=phase, by_category={name: size for name, size in live.items() if size})
            for phase, (_, live) in sorted(self._peaks.items())
        )

    def _add(self, category: str, size: int) -> None:
        self._live[category] += size
        self._total += size

    def _note(self) -> None:
        best = self._peaks.get(self.phase)
        if best is None or self._total > best[0]:
            self._peaks[self.phase] = (self._total, dict(self._live))
