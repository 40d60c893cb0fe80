"""The moments of a first and of a steady iteration: live bytes by category at each candidate for the peak.

Totals come first, because a sweep needs nothing else: the course of forward and backward depends on the batch, states
and steps on the method; each is computed once and they meet here. Categories are filled in for the winners only.
"""

from collections.abc import Iterator
from operator import add
from typing import NamedTuple

from estimators.analytic.cards import CardTraits
from estimators.analytic.clipping import clipping_bytes
from estimators.analytic.course import Course, Point, course_of
from estimators.analytic.data_parallel import broadcast_bytes, buckets_of
from estimators.analytic.evaluation import evaluation_of
from estimators.analytic.growth import growth_of
from estimators.analytic.layout import PHASES
from estimators.analytic.resuming import aliased_bytes, copied_by_loader, file_bytes
from estimators.analytic.states import as_stepped
from estimators.analytic.stepping import Categories, plus, stepping_of
from estimators.footprint import Iteration, Moment, Phase
from estimators.workload import Method, Workload

ITERATIONS: tuple[Iteration, ...] = ("first", "steady")
_NOWHERE = Point(0, 0, 0)
"""Before anything of forward and backward is alive."""
UPDATE_PHASES: dict[str, Phase] = {"refresh": "refresh", "layer_update": "step"}


class Outline(NamedTuple):
    """A moment whose total is known, and what its categories are made of."""

    iteration: Iteration
    name: str
    phase: Phase
    total_bytes: int
    point: Point
    """Where in forward and backward it happens."""
    parts: tuple[Categories, ...]
    """What is alive besides."""

    def moment(self, course: Course) -> Moment:
        """The moment with its categories."""
        by_category = plus(course.categories(self.point), *self.parts)
        return Moment(iteration=self.iteration, name=self.name, phase=self.phase, by_category=by_category)


class Outliner:
    """Draws the moments of one workload.

    Args:
        workload: the run.
        kernel: the attention kernel that runs.
        workspace_bytes: one cuBLAS workspace; backward's thread brings a second one.
        card: what it runs on.
    """

    def __init__(self, workload: Workload, kernel: str, workspace_bytes: int, card: CardTraits | None = None) -> None:
        self.card = card
        self.course = course_of(workload, kernel, card)
        self.stepping = stepping_of(workload.model, workload.method, workload.precision)
        self.per_layer = workload.method.update == "per-layer"
        held = {
            "weights": self.stepping.weights_bytes,
            "buffers": self.stepping.buffers_bytes,
            "workspaces": 2 * workspace_bytes,
        }
        if self.stepping.masters_bytes:
            held["optimizer_states"] = self.stepping.masters_bytes
        self.gathers = self.per_layer and workload.batch.gradient_accumulation_steps > 1
        """Backward passes of a per-layer update leave sums of gradients to each other."""
        self.lasting_bytes = (
            self.stepping.weights_bytes
            + self.stepping.buffers_bytes
            + self.stepping.masters_bytes
            + self.stepping.states_bytes
        )
        """Weights, buffers and states: what is there at every moment of a steady iteration."""
        self.buckets = buckets_of(workload, self.course.layout)
        if self.buckets.rebuilt:
            held["gradients"] = self.buckets.rebuilt_bytes
            self.lasting_bytes += self.buckets.rebuilt_bytes
        self._until_rebuilt: Categories = {"gradients": self.buckets.first_bytes - self.buckets.rebuilt_bytes}
        """What the first iteration's buckets take more; in truth less, for they are fewer."""
        self._broadcast_bytes = broadcast_bytes(workload)
        self.clipping_bytes = self._clipping(workload.method) if workload.clip and not self.per_layer else 0
        self._cast_bytes = self.stepping.stepped_gradients_bytes - self.stepping.gradients_bytes
        """What gradients grow by when they are cast for master weights."""
        self._evaluation = evaluation_of(workload, kernel, card) if workload.eval_batch else None
        keeps = self._evaluation is not None and not self.per_layer and workload.zero_grad == "start"
        keeps = keeps and not workload.frees_gradients
        self._evaluated_gradients_bytes = self.stepping.gradients_after_bytes if keeps else 0
        """Gradients that an evaluation finds: those of the step before, unless they are let go of at its end."""
        self._resume = workload.resume
        self._one_workspace: Categories = {"workspaces": -workspace_bytes}
        self._held = held
        self.held_bytes = sum(held.values())
        self._workspace_bytes = workspace_bytes

    def _clipping(self, method: Method) -> int:
        return clipping_bytes(tuple(as_stepped(group, method) for group in self.stepping.groups))

    @property
    def peak_bytes(self) -> int:
        """The largest total of all outlines, without drawing them."""
        return self.peak_bytes_in(self.course)

    def peak_bytes_in(self, course: Course) -> int:
        """The same in another batch, where no evaluation comes between steps: its forward depends on the batch too.

        Forward and backward of the first iteration are left out: a steady one has the same, and all states besides.
        """
        stepping = self.stepping
        largest = course.peak_bytes + stepping.states_bytes
        if self.per_layer:
            growth = growth_of(stepping, course)
            if self.gathers:
                largest = max(map(add, course.interval_bytes, growth.steady.totals)) + stepping.states_bytes
            largest = max(largest, max(map(add, course.update_bytes, growth.largest_update_bytes)))
        else:
            largest = max(largest, course.end_bytes - stepping.gradients_bytes + self._largest_step_bytes)
            clipped = course.end_bytes + stepping.states_bytes + self.clipping_bytes + self._cast_bytes
            largest = max(largest, clipped if self.clipping_bytes else 0)
        if self._resume != "none":
            largest = max(largest, self._resuming().total_bytes - self.held_bytes)
        if self._broadcast_bytes:
            largest = max(largest, self._broadcast().total_bytes - self.held_bytes)
        if self._evaluation is not None:
            largest = max(largest, sum(self._around_evaluation.values()) + self._evaluation.total_bytes)
        return largest + self.held_bytes

    @property
    def _largest_step_bytes(self) -> int:
        """The largest refresh or step of any iteration; a first one has its own buckets."""
        if not self.buckets.rebuilt:
            return self.stepping.largest_step_bytes
        largest = {name: max(step.total_bytes for step in steps) for name, steps in self.stepping.whole.items()}
        return max(largest["steady"], largest["first"] + self._until_rebuilt["gradients"])

    @property
    def _around_evaluation(self) -> Categories:
        """What lives around an evaluation besides what is always held."""
        return plus(self.stepping.states, {"gradients": self._evaluated_gradients_bytes})

    def _resuming(self) -> Outline:
        """Model and optimizer are built, and take up a checkpoint: see `resuming`."""
        stepping, method = self.stepping, self.stepping.method
        held = self._before_training
        found = dict(stepping.states)
        if self._resume == "device":
            copied = copied_by_loader(stepping.groups, method)
            found["temporaries"] = file_bytes(stepping.groups, method) - aliased_bytes(stepping.groups, method)
            if copied:
                found = {"temporaries": found["temporaries"], "optimizer_states": copied}
        total = sum(held.values()) + sum(found.values())
        return Outline("first", "resume", "between", total, _NOWHERE, (held, found))

    @property
    def _before_training(self) -> Categories:
        """What lives before the first forward."""
        return plus(self._held, {"workspaces": -2 * self._workspace_bytes}, self._until_rebuilt)

    def _broadcast(self) -> Outline:
        """Weights go from the first GPU to the others, before there are buckets: see `data_parallel`."""
        held = plus(self._before_training, {"gradients": -self.buckets.first_bytes})
        copies = {"temporaries": self._broadcast_bytes}
        total = sum(held.values()) + self._broadcast_bytes
        return Outline("first", "broadcast", "between", total, _NOWHERE, (held, copies))

    def _evaluations(self) -> Iterator[Outline]:
        """After each step."""
        found = self._evaluation
        if found is None:
            return
        around = self._around_evaluation
        total = self.held_bytes + sum(around.values()) + found.total_bytes
        parts = (self._held, around, found.by_category)
        for iteration in ITERATIONS:
            yield Outline(iteration, "evaluation", "forward", total, _NOWHERE, parts)

    def outlines(self) -> Iterator[Outline]:
        """Every moment of both iterations; a resumed run has its states from the start."""
        if self._broadcast_bytes:
            yield self._broadcast()
        if self._resume != "none":
            steady = [outline for outline in self._all() if outline.iteration == "steady"]
            yield self._resuming()
            yield from (self._with_first_buckets(outline._replace(iteration="first")) for outline in steady)
            yield from steady
        else:
            yield from map(self._with_first_buckets, self._all())

    def _with_first_buckets(self, outline: Outline) -> Outline:
        """A first iteration's outline with the buckets that it has."""
        if outline.iteration == "steady" or not self.buckets.rebuilt:
            return outline
        total = outline.total_bytes + self._until_rebuilt["gradients"]
        return outline._replace(total_bytes=total, parts=(*outline.parts, self._until_rebuilt))

    def _all(self) -> Iterator[Outline]:
        if self.gathers:
            yield from self._windows_while_it_grows("steady")
        else:
            yield from self._windows("steady", self.stepping.states, self.stepping.states_bytes)
        if self.per_layer:
            yield from self._windows_while_it_grows("first")
            yield from self._updates("first")
            yield from self._updates("steady")
        else:
            yield from self._windows("first", {}, 0)
            yield from self._step("first")
            yield from self._step("steady")
        yield from self._evaluations()

    def _windows(self, iteration: Iteration, states: Categories, states_bytes: int) -> Iterator[Outline]:
        for name, phase in PHASES.items():
            point = self.course.peaks[name] if iteration == "steady" else self._first_peak(name)
            yield self._window(iteration, name, phase, point, states, states_bytes)

    def _first_peak(self, name: str) -> Point:
        """A moment's peak in the first iteration: until backward's first product its thread has no workspace."""
        course, product = self.course, self.course.layout.product
        point = course.peaks[name]
        after = [index for index in course.layout.windows[name] if index >= product > point.interval]
        if not after:
            return point
        best = max(after, key=course.interval_bytes.__getitem__)
        return course.point(best) if course.interval_bytes[best] > point.total_bytes - self._workspace_bytes else point

    def _window(
        self, iteration: Iteration, name: str, phase: Phase, point: Point, states: Categories, states_bytes: int
    ) -> Outline:
        total = point.total_bytes + states_bytes + self.held_bytes
        if iteration == "first" and point.interval < self.course.layout.product:
            parts = (self._held, states, self._one_workspace)
            return Outline(iteration, name, phase, total - self._workspace_bytes, point, parts)
        return Outline(iteration, name, phase, total, point, (self._held, states))

    def _step(self, iteration: Iteration) -> Iterator[Outline]:
        """Whole update: refresh and step with all gradients alive, which the method's own figures include."""
        point, gradients = self.course.end, self.stepping.gradients_bytes
        if self.clipping_bytes:
            states = self.stepping.states if iteration == "steady" else {}
            added = {"temporaries": self.clipping_bytes, "gradients": self._cast_bytes}
            total = point.total_bytes + sum(states.values()) + sum(added.values()) + self.held_bytes
            parts = (self._held, states, added)
            yield Outline(iteration, "clip", "step", total, point, parts)
        for addition in self.stepping.whole[iteration]:
            total = point.total_bytes - gradients + addition.total_bytes + self.held_bytes
            parts = (self._held, {"gradients": -gradients}, addition.by_category)
            yield Outline(iteration, addition.name, addition.phase, total, point, parts)

    def _windows_while_it_grows(self, iteration: Iteration) -> Iterator[Outline]:
        """Per-layer update: states appear as a first backward goes on, and sums of gradients come and go."""
        course = self.course
        growth = growth_of(self.stepping, course).of(iteration)
        totals = list(map(add, course.interval_bytes, growth.totals))
        around, around_bytes = {}, 0
        if iteration == "first":
            product = course.layout.product
            totals[:product] = [total - self._workspace_bytes for total in totals[:product]]
        else:
            around, around_bytes = self.stepping.states, self.stepping.states_bytes
        for name, intervals in course.layout.windows.items():
            index = max(intervals, key=totals.__getitem__)
            found, nbytes = plus(around, growth.categories[index]), around_bytes + growth.totals[index]
            yield self._window(iteration, name, PHASES[name], course.point(index), found, nbytes)

    def _updates(self, iteration: Iteration) -> Iterator[Outline]:
        """Per-layer update: the largest refresh and the largest step of one parameter inside backward."""
        course, stepping = self.course, self.stepping
        layout, around = course.layout, course.update_bytes
        growth = growth_of(stepping, course).of(iteration) if iteration == "first" or self.gathers else None
        if growth is not None:
            around = list(map(add, around, growth.update_totals))
        states = stepping.states if iteration == "steady" else {}
        places = tuple(zip(layout.update_parts, layout.update_names, strict=True))
        for name, added in stepping.update_bytes(iteration, places).items():
            totals = list(map(add, around, added))
            index = totals.index(max(totals))
            addition = stepping.update_of(iteration, layout.update_parts[index], layout.update_names[index])[name]
            total = totals[index] + self.held_bytes + sum(states.values())
            parts = (self._held, states, growth.update_categories[index] if growth else {}, addition.by_category)
            yield Outline(iteration, name, UPDATE_PHASES[name], total, course.update(index), parts)
