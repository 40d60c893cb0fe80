"""The tensors that an optimizer's step makes, parameter by parameter: states, projectors and temporaries."""

from collections.abc import Iterable, Iterator

from estimators.analytic.births import Birth
from estimators.analytic.course import Course
from estimators.analytic.parameters import ParameterGroup
from estimators.analytic.states import as_stepped
from estimators.analytic.stepping import Stepping
from estimators.analytic.steps import walk_parameter_step
from estimators.analytic.tensors import Tensors, rounded
from estimators.analytic.walk import StepPhase, Walk
from estimators.footprint import Iteration
from estimators.workload import Method


class _NamedWalk(Walk):
    """A walk that remembers what is made, and beside how much."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[StepPhase, str, str, int, int]] = []
        """Phase, name, category, bytes, and bytes alive before."""

    def take_states(self, states: Iterable[Tensors], *, count: int = 1) -> None:
        """States by their names."""
        for state in states:
            if not state.on_host:
                self._remember(state.name, state.category, state.nbytes)
                self.take(state.category, state.nbytes, count)

    def hold(self, variable: str, nbytes: int) -> None:
        """Temporaries by the variable that holds them."""
        self._remember(variable, "temporaries", nbytes)
        super().hold(variable, nbytes)

    def hold_weight(self, variable: str, nbytes: int) -> None:
        """The copy by its variable's name."""
        self._remember(variable, "weights", nbytes)
        super().hold_weight(variable, nbytes)

    def replace_gradient(self, old_bytes: int, new_bytes: int) -> None:
        """A cast gradient by its name."""
        self._remember("fp32 gradient", "gradients", new_bytes)
        super().replace_gradient(old_bytes, new_bytes)

    def brief(self, *sizes: int) -> None:
        """Temporaries that have no name."""
        for nbytes in sizes:
            self._remember("temporary", "temporaries", nbytes)
        super().brief(*sizes)

    def _remember(self, name: str, category: str, nbytes: int) -> None:
        self.found.append((self.phase, name, category, nbytes, sum(self.totals().values())))


def births_of_steps(method: Method, stepping: Stepping, course: Course, empty_bytes: int) -> Iterator[Birth]:
    """What stepping each parameter makes, in a first and in a steady iteration.

    In the first one the states of other parameters appear one by one, so that between none and all of them live beside.

    Args:
        method: the optimizer.
        stepping: the method on its model.
        course: forward and backward.
        empty_bytes: weights, buffers and workspaces.
    """
    for group in stepping.groups:
        if not group.trainable:
            continue
        low, high = _around(group, method, stepping, course)
        others = stepping.states_bytes - stepping.own_bytes[group.name]
        yield from _of(group, method, "first", empty_bytes + low, empty_bytes + high + others)
        yield from _of(group, method, "steady", empty_bytes + low + others, empty_bytes + high + others)


def _around(group: ParameterGroup, method: Method, stepping: Stepping, course: Course) -> tuple[int, int]:
    """Least and most that lives besides the parameter's own gradient and all states."""
    own = rounded(group.nbytes)
    if method.update == "whole":
        level = course.end_bytes - own
        grown = stepping.stepped_gradients_bytes - stepping.gradients_bytes  # others may have been cast already
        return level, level + grown + (_other_roots(group, stepping) if _keeps_roots(method) else 0)
    layout = course.layout
    places = zip(layout.update_names, layout.update_parts, course.update_bytes, strict=True)
    levels = [level - own for name, part, level in places if name == group.name and part in ("only", "closing")]
    gathered = 0 if layout.update_parts[-1] == "only" else stepping.accumulators_bytes
    return min(levels), max(levels) + gathered


def _keeps_roots(method: Method) -> bool:
    """Whether the roots of all parameters live together."""
    plain = method.parameterisation != "galore"
    return plain and method.optimizer == "adamw" and method.kernel == "foreach"


def _other_roots(group: ParameterGroup, stepping: Stepping) -> int:
    return stepping.stepped_gradients_bytes - rounded(as_stepped(group, stepping.method).nbytes)


def _of(
    group: ParameterGroup, method: Method, iteration: Iteration, low_bytes: int, high_bytes: int
) -> Iterator[Birth]:
    walk = _NamedWalk()
    walk_parameter_step(walk, group, method, first=iteration == "first", refreshes=True)
    already = set() if iteration == "first" else {"optimizer_states", "projectors"}
    is_sum = group.projected and method.implementation == "galore-mem"
    for phase, name, category, nbytes, before in walk.found:
        if nbytes and category not in already:
            is_scratch = is_sum and category == "temporaries"
            what = "scratch" if is_scratch else name.replace("exp_avg_sq_sqrt", "root of exp_avg_sq")
            yield Birth(
                iteration=iteration,
                stage=phase,
                name=f"{what} of {group.name}",
                is_sum=is_scratch,
                formula="",
                nbytes=nbytes,
                category=category,
                low_bytes=low_bytes + before,
                high_bytes=high_bytes + before,
                count=group.count,
            )
