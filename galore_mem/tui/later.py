"""Work that waits until nobody has asked for it again for a moment."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual.app import App
    from textual.timer import Timer

DETAIL_SECONDS = 0.04
"""How long the cursor must rest before a row is explained."""
SAVE_SECONDS = 1.0


class Later:
    """One timer of each kind; asking again starts it anew."""

    def __init__(self, app: "App[None]") -> None:
        self._app = app
        self._waiting: dict[str, Timer] = {}

    def ask(self, kind: str, seconds: float, work: Callable[[], object]) -> None:
        """Work once nothing of this kind was asked for during some time."""
        if kind in self._waiting:
            self._waiting[kind].stop()

        def now() -> None:
            if self._waiting.get(kind) is timer:  # else it had fired already when it was asked for anew
                del self._waiting[kind]
                work()

        timer = self._waiting[kind] = self._app.set_timer(seconds, now)

    @property
    def waiting(self) -> frozenset[str]:
        """Kinds that still wait."""
        return frozenset(self._waiting)
