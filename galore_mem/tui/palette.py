"""The command palette: what applies now, by what it does."""

from collections.abc import Callable, Iterator
from functools import partial

from textual.command import DiscoveryHit, Hit, Hits, Provider


class Actions(Provider):
    """Every action whose key works in the focused pane, with its key."""

    def _actions(self) -> Iterator[tuple[str, str, Callable[[], object]]]:
        """The pane's own before those of the whole app, and scrolling last."""
        seen: set[str] = set()
        bindings = sorted(self.screen.active_bindings.values(), key=lambda active: _place(active.binding.id or ""))
        for active in bindings:
            binding = active.binding
            if not binding.id or binding.id in seen or not active.enabled or not binding.tooltip:
                continue
            seen.add(binding.id)
            key = self.app.get_key_display(binding)
            run = partial(self.app.run_action, binding.action, default_namespace=active.node)
            yield binding.tooltip, key, run

    async def discover(self) -> Hits:
        """All of them, before anything is typed."""
        for text, help_line, run in self._actions():
            yield DiscoveryHit(text, run, help=help_line)

    async def search(self, query: str) -> Hits:
        """Those that match."""
        matcher = self.matcher(query)
        for text, help_line, run in self._actions():
            score = matcher.match(text)
            if score > 0:
                yield Hit(score, matcher.highlight(text), run, help=help_line)


def _place(name: str) -> int:
    """By the room that a binding's id begins with."""
    return {"page": 2, "app": 1}.get(name.partition(".")[0], 0)
