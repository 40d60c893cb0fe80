"""What a method holds and adds, whatever the batch: states, and the extra bytes of each refresh and step."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from estimators.analytic.buffers import buffers
from estimators.analytic.layout import Layout
from estimators.analytic.parameters import ParameterGroup, parameters_of
from estimators.analytic.states import accumulated_gradients, as_stepped, group_states, master_weights, shared_states
from estimators.analytic.steps import parameter_step, walk_whole_step, whole_step
from estimators.analytic.tensors import live_bytes, rounded
from estimators.analytic.walk import StepMoment, Walk
from estimators.footprint import Iteration, Phase
from estimators.workload import Method, Precision
from profiles.shapes import ModelShape

Categories = dict[str, int]
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
        self.states = plus(
            *(times(own, group.count) for own, group in zip(self._own_states, self.groups, strict=True)),
            *({state.category: state.live_bytes} for state in shared_states(self.groups, method)),
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
        self._vectors: dict[tuple[Iteration, Layout], dict[str, list[int]]] = {}

    @cached_property
    def _own_states(self) -> list[Categories]:
        """States of one parameter of each group."""
        return [
            plus(*({state.category: state.live_bytes // group.count} for state in group_states(group, self.method)))
            for group in self.groups
        ]

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
        return live_bytes(entry for group in self.groups for entry in accumulated_gradients(group, self.method))

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
    def updates(self) -> dict[Iteration, dict[str, dict[str, Addition]]]:
        """Refresh and step of one parameter, by its group and the moment: what they add to what was there before."""
        trainable = [group for group in self.groups if group.trainable]
        return {
            "first": {group.name: self._update(group, "first") for group in trainable},
            "steady": {group.name: self._update(group, "steady") for group in trainable},
        }

    def _update(self, group: ParameterGroup, iteration: Iteration) -> dict[str, Addition]:
        before = {"gradients": -rounded(group.nbytes)}
        if iteration == "steady":
            before = plus(before, times(self.own[group.name], -1))
        found = parameter_step(group, self.method, iteration, refresh=True)
        names = ["refresh" if moment.phase == "refresh" else "layer_update" for moment in found]
        return {
            name: _addition(moment, name, plus(before, moment.by_category))
            for name, moment in zip(names, found, strict=True)
        }

    def update_bytes(self, iteration: Iteration, layout: Layout) -> dict[str, list[int]]:
        """What the updates of a played step add, by moment; parameters without a refresh add none of their own."""
        key = (iteration, layout)
        found = self._vectors.get(key)
        if found is None:
            additions = [self.updates[iteration][name] for name in layout.update_names]
            moments = sorted({moment for addition in additions for moment in addition})
            found = self._vectors[key] = {
                moment: [addition[moment].total_bytes if moment in addition else _NEVER_BYTES for addition in additions]
                for moment in moments
            }
        return found


def _addition(moment: StepMoment, name: str, by_category: Mapping[str, int]) -> Addition:
    return Addition(name=name, phase=moment.phase, by_category=dict(by_category), total_bytes=sum(by_category.values()))


@lru_cache(maxsize=4096)
def stepping_of(model: ModelShape, method: Method, precision: Precision) -> Stepping:
    """The method on the model, computed once."""
    return Stepping(model, method, precision)
