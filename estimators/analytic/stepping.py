"""What a method holds and adds, whatever the batch: states, and the extra bytes of each refresh and step."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from estimators.analytic.buffers import buffers
from estimators.analytic.parameters import ParameterGroup, lone, parameters_of
from estimators.analytic.states import (
    accumulated_gradients,
    as_stepped,
    group_states,
    master_weights,
    projects_each_pass,
    shared_states,
)
from estimators.analytic.steps import parameter_step, walk_whole_step, whole_step
from estimators.analytic.tensors import live_bytes, rounded
from estimators.analytic.walk import Pass, StepMoment, Walk
from estimators.footprint import Iteration, Phase
from estimators.workload import Method, Precision
from profiles.shapes import ModelShape

Categories = dict[str, int]
Places = tuple[tuple[Pass, str], ...]
_NEVER_BYTES = -(2**62)


def plus(*parts: Mapping[str, int]) -> Categories:
    """Sum by category, zeros left out."""
    total: Categories = {}
    for part in parts:
        for category, nbytes in part.items():
            total[category] = total.get(category, 0) + nbytes
    return {category: nbytes for category, nbytes in total.items() if nbytes}


def times(part: Mapping[str, int], factor: int) -> Categories:
    """Every category `factor` times."""
    return {category: nbytes * factor for category, nbytes in part.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """What a refresh or step adds to the bytes around it."""

    name: str
    """The moment's name."""
    phase: Phase
    by_category: Categories
    total_bytes: int


class Stepping:
    """A method on a model: everything about its memory that no batch changes."""

    def __init__(self, model: ModelShape, method: Method, precision: Precision) -> None:
        self.groups = parameters_of(model, method, precision)
        self.method = method
        self.weights_bytes = sum(rounded(group.nbytes) * group.count for group in self.groups)
        self.buffers_bytes = live_bytes(buffers(model))
        self.shared = plus(*({state.category: state.live_bytes} for state in shared_states(self.groups, method)))
        """States that all parameters share."""
        self.states = plus(
            *(times(own, group.count) for own, group in zip(self._own_states, self.groups, strict=True)), self.shared
        )
        """Live bytes of states and projectors, made by the first step."""
        self.states_bytes = sum(self.states.values())
        self.masters_bytes = live_bytes(entry for group in self.groups for entry in master_weights(group, method))
        """fp32 copies of weights, there before the first step."""
        self.gradients_bytes = sum(rounded(group.nbytes) * group.count for group in self.groups if group.trainable)
        self.stepped_gradients_bytes = sum(
            rounded(as_stepped(group, method).nbytes) * group.count for group in self.groups if group.trainable
        )
        """Gradients as the optimizer takes them."""
        self._updates: dict[tuple[Iteration, Pass, str], dict[str, Addition]] = {}
        self._trainable = {group.name: group for group in self.groups if group.trainable}
        self._vectors: dict[tuple[Iteration, Places], dict[str, list[int]]] = {}

    @cached_property
    def _own_states(self) -> list[Categories]:
        """States of one parameter of each group."""
        alike = {
            group: plus(*({state.category: state.live_bytes} for state in group_states(group, self.method)))
            for group in dict.fromkeys(map(lone, self.groups))
        }
        return [alike[lone(group)] for group in self.groups]

    @cached_property
    def own(self) -> dict[str, Categories]:
        """States of one parameter, by its group's name."""
        return {group.name: own for group, own in zip(self.groups, self._own_states, strict=True)}

    @cached_property
    def own_bytes(self) -> dict[str, int]:
        """The same, summed."""
        return {name: sum(own.values()) for name, own in self.own.items()}

    @cached_property
    def accumulators_bytes(self) -> int:
        """Sums of gradients that a per-layer update keeps over micro-batches, low-rank where they are projected."""
        return sum(nbytes * self._trainable[name].count for name, nbytes in self.accumulators.items())

    @cached_property
    def whole(self) -> dict[Iteration, tuple[Addition, ...]]:
        """Refresh and step over all parameters: gradients, states and temporaries."""
        return {"first": self._whole("first"), "steady": self._whole("steady")}

    @cached_property
    def largest_step_bytes(self) -> int:
        """The largest refresh or step over all parameters."""
        return max(addition.total_bytes for additions in self.whole.values() for addition in additions)

    @cached_property
    def gradients_after_bytes(self) -> int:
        """Gradients that are there when a whole step has ended: some optimizers put others in their place."""
        walk = Walk()
        walk_whole_step(walk, self.groups, self.method, first=False, refreshes=True)
        return walk.totals()["gradients"]

    def _whole(self, iteration: Iteration) -> tuple[Addition, ...]:
        found = whole_step(self.groups, self.method, iteration, refresh=True)
        return tuple(_addition(moment, moment.phase, moment.by_category) for moment in found)

    @cached_property
    def sharers(self) -> frozenset[str]:
        """Groups whose parameters need what is shared."""
        return frozenset(name for name, group in self._trainable.items() if shared_states((group,), self.method))

    @cached_property
    def accumulators(self) -> dict[str, int]:
        """Live bytes of the sum that an accumulation keeps of one parameter's gradients, by its group's name."""
        return {
            name: sum(rounded(entry.nbytes) for entry in accumulated_gradients(group, self.method))
            for name, group in self._trainable.items()
        }

    def left_by(self, iteration: Iteration, part: Pass, name: str) -> Categories:
        """By how much what lives grows when a per-layer update has taken one parameter's gradient of a pass.

        The last pass makes states, the first one projectors; the sum of gradients lives from the first to the last.
        """
        own = self.own[name] if iteration == "first" else {}
        if part == "only":
            return own
        if part == "middle":
            return {}
        held, early = {"gradients": self.accumulators[name]}, Categories()
        if projects_each_pass(self._trainable[name], self.method):
            early = {category: nbytes for category, nbytes in own.items() if category == "projectors"}
        if part == "opening":
            return plus(held, early)
        return plus(own, times(early, -1), times(held, -1))

    def update_of(self, iteration: Iteration, part: Pass, name: str) -> dict[str, Addition]:
        """What taking one parameter's gradient adds to what was there before, by moment: a refresh, and a step."""
        key = (iteration, part, self._alike[name])
        found = self._updates.get(key)
        if found is None:
            found = self._updates[key] = self._update(self._trainable[name], iteration, part)
        return found

    @cached_property
    def _alike(self) -> dict[str, str]:
        """By name the first group of its shape and kind: what is stepped apart does the same for all of them."""
        first: dict[ParameterGroup, str] = {}
        return {name: first.setdefault(lone(group), name) for name, group in self._trainable.items()}

    def _update(self, group: ParameterGroup, iteration: Iteration, part: Pass) -> dict[str, Addition]:
        before = {"gradients": -rounded(group.nbytes)}
        if iteration == "steady":
            before = plus(before, times(self.own[group.name], -1))
        if part in ("middle", "closing"):
            before = plus(before, times(self.left_by(iteration, "opening", group.name), -1))
        found = parameter_step(lone(group), self.method, iteration, refresh=True, part=part)
        names = ["refresh" if moment.phase == "refresh" else "layer_update" for moment in found]
        return {
            name: _addition(moment, name, plus(before, moment.by_category))
            for name, moment in zip(names, found, strict=True)
        }

    def update_bytes(self, iteration: Iteration, places: Places) -> dict[str, list[int]]:
        """What the updates of a played step add, by moment; parameters without a refresh add none of their own.

        Args:
            iteration: first or steady.
            places: pass and parameter of each update.
        """
        key = (iteration, places)
        found = self._vectors.get(key)
        if found is None:
            additions = {place: self.update_of(iteration, *place) for place in dict.fromkeys(places)}
            moments = sorted({moment for addition in additions.values() for moment in addition})
            found = self._vectors[key] = {}
            for moment in moments:
                totals = {
                    place: addition[moment].total_bytes if moment in addition else _NEVER_BYTES
                    for place, addition in additions.items()
                }
                found[moment] = [totals[place] for place in places]
        return found


def _addition(moment: StepMoment, name: str, by_category: Mapping[str, int]) -> Addition:
    return Addition(name=name, phase=moment.phase, by_category=dict(by_category), total_bytes=sum(by_category.values()))


@lru_cache(maxsize=4096)
def stepping_of(model: ModelShape, method: Method, precision: Precision) -> Stepping:
    """The method on the model, computed once."""
    return Stepping(model, method, precision)
