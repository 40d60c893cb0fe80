"""The category of every block: as recorded, or by rules where the run was not ours.

A snapshot of torch knows sizes, stacks, lifetimes and annotations, but not what a block is for. The rules, first match
wins: a person's own; cuBLAS's known sizes; blocks that outlive the recording (made by the optimizer: states; in
forward or before: weights); blocks of the optimizer's step that die in it; blocks of a backward pass (as large as a
weight and alive until the optimizer's step: gradients); blocks of a forward pass. What no rule knows is
`unattributed`.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from estimators.footprint import CATEGORIES
from galore_mem.answers.report.lives import START, Lives
from galore_mem.answers.report.rules import Rule
from galore_mem.answers.report.spans import Span
from profiles.gpus import LARGE_WORKSPACE_BYTES, SMALL_WORKSPACE_BYTES

UNATTRIBUTED = "unattributed"
NAMES: tuple[str, ...] = (*CATEGORIES, UNATTRIBUTED)
_WORKSPACES = frozenset({SMALL_WORKSPACE_BYTES, LARGE_WORKSPACE_BYTES})
_MOST_WORKSPACES = 8
"""Of one size: every thread and stream has one. A matrix of 4096 x 4096 in bf16 is as large as Hopper's."""
_LASTING_SHARE = 0.98
"""A block that lives on from a share of the recording to its end outlives it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Categories of blocks."""

    category_of: Sequence[int]
    """Of each block, its position in `NAMES`."""
    by_rule: bool
    """They were worked out, not recorded."""

    @property
    def names(self) -> list[str]:
        """The category of each block."""
        return [NAMES[position] for position in self.category_of]


def labels_of(lives: Lives, phases: Sequence[Span], rules: Sequence[Rule] = ()) -> Labels:
    """The category of every block."""
    recorded = lives.tape.events.known.get("category")
    names = lives.tape.events.names
    known = {number: NAMES.index(name) for number, name in enumerate(names) if name in NAMES}
    unknown = NAMES.index(UNATTRIBUTED)
    found = [known.get(recorded[row], unknown) if recorded is not None and row >= 0 else unknown for row in lives.row]
    missing = [number for number, category in enumerate(found) if category == unknown]
    by_rule = len(missing) > len(found) // 2 or bool(rules)
    if missing and by_rule:
        guess = _Rules(lives, phases)
        for number in missing:
            found[number] = NAMES.index(guess.of(number))
    for number in range(len(found)) if rules else ():
        for rule in rules:
            if rule.matches(lives, number):
                found[number] = NAMES.index(rule.category)
                break
    return Labels(category_of=found, by_rule=by_rule and bool(found))


class _Rules:
    """The built-in rules."""

    def __init__(self, lives: Lives, phases: Sequence[Span]) -> None:
        self._lives = lives
        self._starts = [span.start for span in phases]
        self._phases = phases
        self._recorded = "phase" in lives.tape.events.known
        self._knows_passes = self._recorded or any(span.name in ("forward", "backward") for span in phases)
        self._weight_sizes = self._sizes_of_weights()
        self._workspaces = frozenset(number for size in _WORKSPACES for number in self._workspaces_of(size))

    def of(self, number: int) -> str:
        """The category of one block."""
        phase = self._phase(number)
        if self._outlives(number):
            return "workspaces" if number in self._workspaces else self._lasting(number, phase)
        if phase in ("step", "refresh"):
            return "temporaries" if self._dies_in_its_span(number) else "optimizer_states"
        if phase == "backward":
            return self._of_backward(number)
        if phase in ("forward", "loss"):
            return "temporaries" if self._dies_in_its_span(number) else "activations"
        return self._by_lifetime(number)

    def _workspaces_of(self, size: int) -> list[int]:
        """The blocks of a workspace's size that are few enough; where weights are as large, those born in a pass."""
        lives = self._lives
        lasting = [number for number, nbytes in enumerate(lives.nbytes) if nbytes == size and self._outlives(number)]
        if len(lasting) > _MOST_WORKSPACES:
            lasting = [number for number in lasting if self._phase(number) in ("forward", "loss", "backward")]
        return lasting if len(lasting) <= _MOST_WORKSPACES else []

    def _lasting(self, number: int, phase: str) -> str:
        if phase in ("step", "refresh"):
            return "optimizer_states"
        if phase == "backward":
            return "gradients"
        if phase in ("forward", "loss"):
            return "activations"
        born = self._lives.birth[number]
        if born == START or born < self._first("forward", "backward", "step", "refresh"):
            return "weights"
        return UNATTRIBUTED

    def _of_backward(self, number: int) -> str:
        as_large = self._lives.rounded[number] in self._weight_sizes
        return "gradients" if as_large or not self._dies_in_its_span(number) else "temporaries"

    def _by_lifetime(self, number: int) -> str:
        """Without any pass known: what dies within a few events is scratch."""
        if self._lives.death[number] - self._lives.birth[number] <= 4:
            return "temporaries"
        return UNATTRIBUTED if self._knows_passes else "activations"

    def _phase(self, number: int) -> str:
        if self._recorded:
            own = self._lives.text("phase", number)
            if own:
                return own
        return self._span_name(self._lives.birth[number])

    def _span_name(self, event: int) -> str:
        index = bisect_right(self._starts, event) - 1
        return self._phases[index].name if index >= 0 else "between"

    def _stop_of_span(self, number: int) -> int:
        index = bisect_right(self._starts, self._lives.birth[number]) - 1
        return self._phases[index].stop if index >= 0 else 0

    def _dies_in_its_span(self, number: int) -> bool:
        return self._lives.death[number] < self._stop_of_span(number)

    def _outlives(self, number: int) -> bool:
        lives = self._lives
        return lives.death[number] >= lives.events * _LASTING_SHARE and (
            lives.birth[number] < lives.events * _LASTING_SHARE
        )

    def _first(self, *names: str) -> int:
        return min((span.start for span in self._phases if span.name in names), default=self._lives.events // 2)

    def _sizes_of_weights(self) -> frozenset[int]:
        lives, first = self._lives, self._first("forward", "backward", "step", "refresh")
        return frozenset(
            lives.rounded[number]
            for number in range(len(lives))
            if lives.birth[number] < first and self._outlives(number)
        )
