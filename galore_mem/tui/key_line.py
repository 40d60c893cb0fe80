"""The keys that work now, in one line: what does not fit is left to the help."""

from rich.text import Text
from textual import events
from textual.reactive import reactive
from textual.screen import Screen
from textual.widget import Widget

ALWAYS = ("app.help", "app.quit")
"""Shown last, whatever the width."""
Key = tuple[str, str, str]
"""Id of the binding, the key as people read it, and what it does."""


class KeyLine(Widget):
    """Drawn as one piece: Textual's own footer makes a widget of every key, each time the focus moves."""

    DEFAULT_CSS = """
    KeyLine { height: 1; background: $panel; color: $text; }
    """
    keys: reactive[tuple[Key, ...]] = reactive(())

    def on_mount(self) -> None:
        """Follow the focus."""
        self.screen.bindings_updated_signal.subscribe(self, self._follow)
        self._follow(self.screen)

    def _follow(self, screen: Screen[object]) -> None:
        found: dict[str, Key] = {}
        for active in screen.active_bindings.values():
            binding = active.binding
            if binding.show and binding.id and active.enabled:
                found.setdefault(binding.id, (binding.id, self.app.get_key_display(binding), binding.description))
        self.keys = (
            *(key for name, key in found.items() if name not in ALWAYS),
            *(found[name] for name in ALWAYS if name in found),
        )

    def _places(self) -> list[tuple[int, Key]]:
        """Where each key begins; the last ones keep their room."""
        last = [key for key in self.keys if key[0] in ALWAYS]
        kept = sum(map(_cells, last))
        places, x = [], 1
        for key in self.keys:
            room = self.size.width - (0 if key in last else kept)
            if x + _cells(key) <= room + 2:
                places.append((x, key))
                x += _cells(key)
        return places

    def render(self) -> Text:
        """Each key and its word."""
        text = Text(" ", no_wrap=True, overflow="crop")
        for _, (_, key, word) in self._places():
            text.append(key, style="bold").append(f" {word}  ", style="dim")
        return text

    async def on_click(self, event: events.Click) -> None:
        """A click is the key."""
        for x, key in self._places():
            if x <= event.x < x + _cells(key) - 2:
                active = next(found for found in self.screen.active_bindings.values() if found.binding.id == key[0])
                await self.app.run_action(active.binding.action, default_namespace=active.node)
                return


def _cells(key: Key) -> int:
    return len(key[1]) + 1 + len(key[2]) + 2
