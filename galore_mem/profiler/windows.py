"""The windows of a step, as every witness is told of them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from galore_mem.profiler.places import OUTSIDE, layer_of


class Windows:
    """What witnesses of a step have in common: where the step is, and which layer's backward runs."""

    window = "between"
    iteration = ""
    _layer = OUTSIDE

    def begin(self, iteration: str) -> None:
        """A new iteration starts."""
        self.iteration = iteration
        self.enter("between")

    def enter(self, window: str) -> None:
        """Another window of the step begins."""
        raise NotImplementedError

    @contextmanager
    def during(self, window: str) -> Iterator[None]:
        """A window that lies inside another one, which goes on afterwards."""
        outer = self.window
        self.enter(window)
        try:
            yield
        finally:
            self.enter(outer)

    def follow_layer(self, path: str, last: int) -> None:
        """Backward has come to a module: `backward_start` lasts until it leaves the last layer.

        Args:
            path: of the module.
            last: number of the model's last layer.
        """
        layer = layer_of(path)
        if layer == self._layer:
            return
        self._layer = layer
        early = layer in (OUTSIDE, last) and self.window == "backward_start" and last > 0
        window = "backward_start" if early else "backward_end"
        if window != self.window:
            self.enter(window)


@contextmanager
def replaced(methods: Iterable[tuple[Any, str]], by: Callable[[str, Any], Any]) -> Iterator[None]:
    """Other methods while entered.

    Args:
        methods: (class, name) of each.
        by: makes the new method from its name and the one it takes the place of.
    """
    originals = [(owner, name, getattr(owner, name)) for owner, name in methods]
    for owner, name, original in originals:
        setattr(owner, name, by(name, original))
    try:
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)
