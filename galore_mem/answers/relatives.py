"""Copies and tuned variants of catalogued models, known by their names alone: for when the Hub does not answer."""

from itertools import product

from galore_mem.answers.names import NamedConfig
from profiles.errors import InputError
from profiles.models import find_model

_HEADS = ("", "meta-")
_TAILS = ("-instruct", "-chat", "-it", "-base", "-hf")
"""What publishers put around a name without changing a size."""


def relative_of(name: str, reason: str) -> NamedConfig | None:
    """The catalogue's model whose name an `org/name` is but for such parts; None where there is none.

    Args:
        name: as the person named it.
        reason: why it was not looked up.
    """
    bare = name.partition("@")[0].rpartition("/")[2].lower()
    for candidate in _candidates(bare):
        try:
            model = find_model(candidate)
        except InputError:
            continue
        note = f"{reason}: {name} is planned as {model.name} of the catalogue, whose copy or variant it is by its name"
        return NamedConfig(name=model.name, config=model.config, source=model.source, is_file=False, notes=(note,))
    return None


def _candidates(bare: str) -> list[str]:
    """The name without parts at its end, one after another, with and without what may stand before it."""
    ends = [bare]
    while any(ends[-1].endswith(tail) for tail in _TAILS):
        tail = next(tail for tail in _TAILS if ends[-1].endswith(tail))
        ends.append(ends[-1].removesuffix(tail))
    return [end.removeprefix(head) for end, head in product(ends, _HEADS)]
