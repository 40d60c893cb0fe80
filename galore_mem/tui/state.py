"""What a person has set, chosen and marked: one frozen value, from which everything on the screen follows."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from galore_mem.answers.settings import STORY, Settings, settings_from
from galore_mem.errors import UsageError

View = Literal["table", "matrix", "plot", "compare", "detail", "settings"]
SortKey = Literal["asked", "name", "peak", "headroom", "verdict"]
PlotAxis = Literal["sequence", "batch", "rank"]
Value = str | int | float | bool | tuple[str, ...]
SCHEMA = "galore-mem/tui/1"
FIRST_MODEL = "llama-7b"
FIRST_CARDS = ("3060-12gb", "4080", "4090", "5090", "a6000", "a100-40gb", "a100-80gb", "h100", "h200")
FIRST_CARD = "4090"
DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(Settings)}
"""A setting's value where none was chosen; None leaves it to the method."""
MOST_ROWS = 2000
SORTS: dict[SortKey, str] = {
    "asked": "as asked",
    "name": "configuration",
    "peak": "peak",
    "headroom": "headroom",
    "verdict": "verdict",
}
"""What the table can be sorted by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything that is kept from one session to the next."""

    models: tuple[str, ...] = (FIRST_MODEL,)
    """As people name them: catalogue names, paths, Hub ids."""
    gpus: tuple[str, ...] = FIRST_CARDS
    """Names or aliases; `local` means the cards of this machine."""
    card: str = FIRST_CARD
    """The one that the table judges by."""
    other_use: str = ""
    """What others take from each card, as a size; on a local card, unless given, what they take now."""
    methods: tuple[str, ...] = ()
    """None means the story of six."""
    settings: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    """Fields of `Settings` that were given one or more values; every combination becomes a row."""
    sort: SortKey = "asked"
    descending: bool = False
    words: str = ""
    """The filter: every word must be found in a row."""
    marks: tuple[str, ...] = ()
    """Slots of rows, in the order of marking."""
    current: str = ""
    """Slot of the row under the cursor."""
    baseline: str = ""
    """Slot of the row that all others are shown relative to."""
    view: View = "table"
    axis: PlotAxis = "sequence"
    dark: bool = True

    def values(self, setting: str) -> tuple[Value, ...]:
        """The values of one setting; empty where it is left at its default."""
        return dict(self.settings).get(setting, ())

    def with_values(self, setting: str, values: Iterable[Value]) -> "State":
        """The same with other values for one setting; the default alone is not kept.

        Raises:
            InputError: a value that means nothing; names the option and what it accepts.
        """
        kept = tuple(dict.fromkeys(values))
        for value in kept:
            settings_from({setting: value})
        if kept == (DEFAULTS[setting],):
            kept = ()
        rest = {name: found for name, found in self.settings if name != setting}
        if kept:
            rest[setting] = kept
        order = list(DEFAULTS)
        return replace(self, settings=tuple(sorted(rest.items(), key=lambda item: order.index(item[0]))))

    def chosen(self, name: str, values: tuple[Value, ...]) -> "State":
        """The same with other values for a setting, or for the models, the cards, the methods; none is the default.

        Raises:
            InputError: a value that means nothing.
        """
        if name in ("models", "gpus", "methods"):
            kept = tuple(map(str, values))
            return replace(self, **{name: kept}) if kept or name == "methods" else self  # type: ignore[arg-type]
        if name == "other_use":
            return replace(self, other_use=str(values[0]) if values else "")
        return self.with_values(name, values)

    def without_card(self, name: str) -> "State":
        """The same without a card that cannot be used; the first ones where none is left."""
        return replace(self, gpus=tuple(gpu for gpu in self.gpus if gpu != name) or FIRST_CARDS)

    @property
    def combinations(self) -> int:
        """How many rows each model gets at most."""
        count = len(self.methods) or len(STORY)
        for _, values in self.settings:
            count *= len(values)
        return count

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"schema": SCHEMA, **data, "settings": {name: list(values) for name, values in self.settings}}


def next_sort(state: State) -> State:
    """Sorted by the next column, and in the end as asked again."""
    keys = list(SORTS)
    return replace(state, sort=keys[(keys.index(state.sort) + 1) % len(keys)])


CHANGES: dict[str, Callable[[State], State]] = {
    "next sort": next_sort,
    "other order": lambda state: replace(state, descending=not state.descending),
    "other theme": lambda state: replace(state, dark=not state.dark),
    "no marks": lambda state: replace(state, marks=(), baseline=""),
}
"""What a key alone changes."""


def state_from(data: Mapping[str, Any]) -> State:
    """A state from plain JSON values; keys that are missing take their defaults.

    Raises:
        UsageError: another schema, or a value of the wrong kind.
        InputError: a setting that means nothing.
    """
    if data.get("schema") != SCHEMA:
        raise UsageError(f"the saved state is of another kind: {str(data.get('schema'))[:40]!r}")
    words: dict[str, Any] = {}
    for field in fields(State):
        if field.name in data and field.name != "settings":
            words[field.name] = _checked(field.name, field.type, data[field.name])
    state = State(**words)
    settings = data.get("settings", {})
    if not isinstance(settings, dict):
        raise UsageError("the saved state's settings are no object")
    for name, values in settings.items():
        if name not in DEFAULTS or not isinstance(values, list):
            raise UsageError(f"the saved state has no setting {str(name)[:40]!r}")
        state = state.with_values(name, [tuple(value) if isinstance(value, list) else value for value in values])
    return state


def _checked(name: str, kind: Any, value: Any) -> Any:  # noqa: ANN401
    if get_args(kind) and all(isinstance(choice, str) for choice in get_args(kind)):
        good = value in get_args(kind)
    elif kind == tuple[str, ...]:
        good = isinstance(value, list) and all(isinstance(item, str) for item in value)
        value = tuple(value) if good else value
    else:
        good = isinstance(value, kind)
    if not good or (name in ("models", "gpus") and not value):
        raise UsageError(f"the saved state's {name} cannot be used: {str(value)[:40]!r}")
    return value
