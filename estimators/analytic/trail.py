"""A walk through an optimizer's step that writes every tensor into a ledger."""

from collections.abc import Iterable, Sequence

from estimators.analytic.history_ledger import Ledger
from estimators.analytic.tensors import Tensors
from estimators.analytic.walk import Walk


class Trail(Walk):
    """A walk that writes down every tensor it meets, where other walks add up."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger
        self._held: dict[str, list[int]] = {}
        self._lasting: dict[tuple[str, int], list[int]] = {}
        self.gradients: list[int] = []
        """What stands for the present parameter's gradient, oldest first."""
        self.weight = 0
        """The present parameter's own block; 0 where it is not known."""

    def take(self, category: str, nbytes: int, count: int = 1) -> None:
        """`count` tensors are born that outlive the step."""
        for _ in range(count if nbytes else 0):
            number = self._ledger.alloc(nbytes)
            (self.gradients if category == "gradients" else self._of(category, nbytes)).append(number)

    def take_all(self, states: Iterable[Tensors]) -> None:
        """One parameter's states are born, those on the device."""
        self.take_states(states)

    def give(self, category: str, nbytes: int, count: int = 1) -> None:
        """`count` such tensors die, the oldest first."""
        numbers = self.gradients if category == "gradients" else self._of(category, nbytes)
        for _ in range(min(count, len(numbers))):
            self._ledger.free(numbers.pop(0))

    def hold(self, variable: str, nbytes: int) -> None:
        """Assign a new temporary to a variable; what it held dies afterwards."""
        self.hold_list(variable, [nbytes])

    def hold_list(self, variable: str, sizes: Sequence[int]) -> None:
        """Assign a list of new temporaries to a variable; what it held dies afterwards."""
        numbers = [self._ledger.alloc(nbytes) for nbytes in sizes if nbytes]
        self.drop(variable)
        self._held[variable] = numbers

    def drop(self, *variables: str) -> None:
        """Variables let go of their temporaries, if they hold any."""
        for variable in variables:
            for number in self._held.pop(variable, ()):
                self._ledger.free(number)

    def drop_all(self) -> None:
        """The function returns."""
        self.drop(*list(self._held))

    def keep_as_gradient(self, variable: str) -> None:
        """What a variable holds becomes the parameter's gradient, and outlives the variable."""
        self.gradients += self._held.pop(variable, ())

    def hold_weight(self, variable: str, nbytes: int) -> None:
        """Assign a copy of the weight, which will take its place, to a variable."""
        self.hold(variable, nbytes)

    def keep_as_weight(self, variable: str, nbytes: int) -> None:
        """What a variable holds, a copy of the weight, becomes the weight; the old one dies."""
        (copy,) = self._held.pop(variable)
        self._ledger.free(self.weight)
        self.weight = copy

    def move(self, source: str, target: str) -> None:
        """Assign what one variable holds to another, whose old value dies."""
        self.drop(target)
        self._held[target] = self._held.pop(source)

    def brief(self, *sizes: int) -> None:
        """Temporaries that live together, unnamed, and die at once."""
        numbers = [self._ledger.alloc(nbytes) for nbytes in sizes if nbytes]
        for number in numbers:
            self._ledger.free(number)

    def decompose(self, rows: int, columns: int) -> None:
        """What a library holds inside is not the allocator's to see."""

    def _of(self, category: str, nbytes: int) -> list[int]:
        return self._lasting.setdefault((category, nbytes), [])
