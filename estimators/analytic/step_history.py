"""An optimizer's step as an allocator would see it: every tensor told apart, parameter by parameter."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from estimators.analytic.history_ledger import Ledger, Recipe
from estimators.analytic.parameter_steps import adafactor
from estimators.analytic.parameters import ParameterGroup
from estimators.analytic.projection import projection_of
from estimators.analytic.refresh_history import write_refresh
from estimators.analytic.states import as_stepped, group_states, inner_states, projects_each_pass, shared_states
from estimators.analytic.steps import looping_optimizer, optimizer_groups
from estimators.analytic.trail import Trail
from estimators.workload import Method


def in_model_order(groups: Sequence[ParameterGroup]) -> Iterator[tuple[ParameterGroup, int]]:
    """Every parameter as the model lists them, alone in its group, with its place in the group."""
    for _, run in groupby(groups, lambda group: _stack_of(group)[0]):
        stack = [(replace(group, count=1), group.count, _stack_of(group)[1]) for group in run]
        for layer in range(max(count + only for _, count, only in stack)):
            for group, count, only in stack:
                if only <= layer < only + count:
                    yield group, layer - only


def _stack_of(group: ParameterGroup) -> tuple[str, int]:
    """The list of layers that parameters lie in, and the first layer that has one: T5's first has a table for all."""
    stack, star, _ = group.name.partition("*")
    found = None if star else _ONE_LAYER.match(stack)
    return (found[1], int(found[2])) if found else (stack if star else "", 0)


_ONE_LAYER = re.compile(r"(.+?\.)(\d+)\.")


class StepWriter:
    """Writes the steps of one run.

    Args:
        ledger: where to.
        groups: all parameters.
        method: the optimizer.
        weights: blocks of each group's parameters, by their layers.
    """

    def __init__(
        self, ledger: Ledger, groups: Sequence[ParameterGroup], method: Method, weights: dict[str, list[int]]
    ) -> None:
        self._ledger = ledger
        self._method = method
        self._groups = {group.name: replace(group, count=1) for group in groups}
        self._trainable = tuple(group for group in groups if group.trainable)
        self._weights = weights
        self._trail = Trail(ledger)
        self._loop = looping_optimizer(method)
        self._is_own = method.parameterisation == "galore" and method.implementation == "galore-mem"
        self.freed: set[int] = set()
        """Gradients that the last step freed."""
        self._left: list[int] = []
        """What took the place of gradients."""
        self._recipes: dict[tuple[str, bool, int], Recipe] = {}
        """Of this package's GaLore, which leaves nothing of one parameter to the next; Adafactor replaces gradients."""

    def whole(self, gradients: Mapping[str, Sequence[int]], *, first: bool) -> None:
        """All parameters.

        Args:
            gradients: by the group's name, in the order of backward.
            first: the step makes the states.
        """
        if self._method.master_weights:
            self._cast(gradients)
        for part in optimizer_groups(self._trainable, self._method):
            if self._loop is None:
                self._all(tuple(group for group, _ in in_model_order(part)), first=first)
                continue
            for group, layer in in_model_order(part):
                self._one(group, gradients[group.name][-1 - layer], layer, first=first)
        self._trail.drop_all()

    def _cast(self, gradients: Mapping[str, Sequence[int]]) -> None:
        """Master weights take their gradients in fp32."""
        for group, layer in in_model_order(self._trainable):
            self._left.append(self._ledger.alloc(as_stepped(group, self._method).nbytes))
            number = gradients[group.name][-1 - layer]
            self._ledger.free(number)
            self.freed.add(number)

    def single(self, name: str, gradient: int, layer: int, *, first: bool) -> bool:
        """One parameter of a group, inside backward; returns whether its gradient is dead already."""
        group = self._groups[name]
        if self._loop is None:
            self._all((group,), first=first)
            return False
        self._one(group, gradient, layer, first=first)
        self._trail.drop_all()
        self.end()
        return gradient in self.freed

    def take_states(self) -> None:
        """All states are there before a step: the run was resumed."""
        for group, _ in in_model_order(self._trainable):
            self._trail.take_all(group_states(group, self._method))
        for shared in shared_states(self._trainable, self._method):
            self._trail.take_once(shared)

    def projects(self, name: str) -> bool:
        """Whether an accumulation keeps projections of the group's gradients."""
        return projects_each_pass(self._groups[name], self._method)

    def gather(self, name: str, gradient: int, *, opening: bool, first: bool) -> int:
        """A projected gradient of a pass before the last one; returns the block of what the first pass keeps, or 0."""
        group = self._groups[name]
        self._trail.gradients = [gradient]
        if opening:
            write_refresh(self._trail, group, self._method, first=first)
        self._project(group)
        if opening:
            self._trail.keep_as_gradient("low")
            return self._trail.gradients.pop()
        self._trail.drop("low")
        return 0

    def finish(self, name: str, gradients: tuple[int, int], *, first: bool) -> None:
        """The last pass of an accumulation: its gradient joins what the others have left, which is stepped."""
        gradient, gathered = gradients
        self.gather(name, gradient, opening=False, first=first)
        self._step_low(self._groups[name], first=first)
        self._trail.drop_all()
        self._ledger.free(gathered)

    def end(self) -> None:
        """Gradients are let go of."""
        for number in self._left:
            self._ledger.free(number)
        self._left.clear()

    def _all(self, groups: tuple[ParameterGroup, ...], *, first: bool) -> None:
        """Torch's optimizers (`estimators.analytic.steps`)."""
        groups = tuple(as_stepped(group, self._method) for group in groups)
        if first:
            for group in groups:
                self._trail.take_all(group_states(group, self._method))
        if self._method.optimizer != "adamw":
            return
        if self._method.kernel == "foreach":
            for itemsize in sorted({group.itemsize for group in groups}, reverse=True):
                self._trail.hold_list("roots", [group.nbytes for group in groups if group.itemsize == itemsize])
            self._trail.drop("roots")
        elif self._method.kernel == "loop":
            for group in groups:
                self._trail.hold("sqrt", group.nbytes)
                self._trail.hold("denom", group.nbytes)
                self._trail.drop("sqrt")
            self._trail.drop("denom")

    def _one(self, group: ParameterGroup, gradient: int, layer: int, *, first: bool) -> None:
        assert self._loop is not None
        if self._is_own and self._method.optimizer != "adafactor":
            self._own_again(group, gradient, first=first)
            return
        weights = self._weights[group.name]
        self._trail.gradients, self._trail.weight = [gradient], weights[layer]
        if self._is_own:
            self._own(group, first=first)
        else:
            self._loop(self._trail, group, self._method, first=first, refreshes=True)
        weights[layer] = self._trail.weight
        left = self._trail.gradients
        if gradient not in left:
            self.freed.add(gradient)
        self._left += [number for number in left if number != gradient]

    def _own_again(self, group: ParameterGroup, gradient: int, *, first: bool) -> None:
        """Layer after layer does the same, but for what all parameters share, which the first of them makes."""
        ledger, key = self._ledger, (group.name, first, self._trail.shared_made)
        recipe = self._recipes.get(key)
        if recipe is None:
            written, made = len(ledger.codes), len(ledger.sizes) - 1
            self._trail.gradients = [gradient]
            self._own(group, first=first)
            recipe = self._recipes[key] = ledger.since(written, made, gradient)
        else:
            ledger.repeat(recipe, gradient)
        if 0 in recipe.codes:
            self.freed.add(gradient)

    def _own(self, group: ParameterGroup, *, first: bool) -> None:
        """This package's GaLore (galore_mem/optim/galore.py): each inner step is a call of its own."""
        if group.projected:
            write_refresh(self._trail, group, self._method, first=first)
            self._project(group)
            self._step_low(group, first=first)
        else:
            self._inner(group, first=first)
        self._trail.drop_all()

    def _project(self, group: ParameterGroup) -> None:
        """The projected gradient, in whose favour a per-layer update lets go of the whole one."""
        trail, projection = self._trail, projection_of(group, self._method)
        if len(projection.sides) == 2:
            trail.hold("half", group.itemsize * projection.rank * min(group.shape))
        trail.hold("low", group.itemsize * projection.low_rank_numel)
        trail.drop("half")
        if self._method.update == "per-layer":
            trail.give("gradients", group.nbytes)

    def _step_low(self, group: ParameterGroup, *, first: bool) -> None:
        """The inner optimizer steps a stand-in of the low-rank shape."""
        projection = projection_of(group, self._method)
        self._trail.hold("proxy", group.itemsize * projection.low_rank_numel)
        if self._method.optimizer == "adafactor":
            self._trail.hold("rms", 4)
        self._inner(replace(group, shape=projection.low_rank_shape, projected=False), first=first)

    def _inner(self, group: ParameterGroup, *, first: bool) -> None:
        trail, method = self._trail, self._method
        if method.optimizer == "adafactor":
            adafactor(trail, group, method, first=first, refreshes=False)
            return
        if first:
            if method.update == "whole":
                for shared in shared_states((group,), method):
                    trail.take_once(shared)
            trail.take_all(inner_states(group, method))
        if method.optimizer == "adamw":
            trail.brief(*[group.nbytes] * {"loop": 2, "foreach": 1, "fused": 0}[method.kernel])
