"""Words that a training step and whoever watches it share, and a watcher that does not look."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

EMPTY_CACHE = "empty_cache"
"""A window in which nothing happens but that the allocator's cached memory is given back."""
HOST = "host"
"""Category of storages that a run on a GPU keeps in host memory: they are in no figure."""


class Unwatched:
    """A witness of the step that does not look."""

    def begin(self, iteration: str) -> None:
        """A new iteration starts."""

    def enter(self, window: str) -> None:
        """Another window of the step begins."""

    def during(self, window: str) -> AbstractContextManager[None]:
        """A window inside another one."""
        return nullcontext()

    def scope(self, category: str) -> AbstractContextManager[None]:
        """Whatever is born inside has this category."""
        return nullcontext()

    def claim(self, category: str, tensors: Any, owner: str = "") -> None:  # noqa: ANN401
        """Name the category of living tensors."""
