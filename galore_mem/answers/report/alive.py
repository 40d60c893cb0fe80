"""What lives at one event: a table of tensors, a tree by module, and bytes by layer."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from galore_mem.answers.report.lives import Lives

MOST_TENSORS = 4_000
MOST_NODES = 2_500
OUTSIDE = "outside the layers"
_PARAMETERS = frozenset({"weight", "bias"})
"""Last parts of names that hang with their module, beside what it makes."""
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|layer|block)\.(\d+)(?:\.|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One block in use."""

    nbytes: int
    category: str
    module: str
    operator: str
    birth: int
    """Its event; -1 where it was there before the first."""
    death: int | None
    """None where it outlives the recording."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """Everything alive at one event."""

    event: int
    tensors: tuple[Tensor, ...]
    """The largest, largest first."""
    others: int
    """Smaller ones that are not listed."""
    others_bytes: int
    by_category: dict[str, int]
    """Rounded bytes of all of them."""
    modules: tuple["Node", ...]
    """By module, the layers' equal parts taken together."""
    layer_tree: tuple["Node", ...]
    """By layer; empty for models without numbered layers."""
    layers: dict[str, dict[str, int]]
    """Bytes by category of each layer, and of what lies outside; empty for models without numbered layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A part of the tree; parents stand before their children."""

    label: str
    parent: int
    """Its position; -1 for the root."""
    nbytes: int
    """Everything below it included, also what is too small to be drawn."""
    category: str
    """Empty where several meet."""


def alive_at(lives: Lives, category_names: Sequence[str], event: int) -> Alive:
    """What lives after an event.

    Args:
        lives: the blocks.
        category_names: of each block.
        event: -1 for what was there before the first.
    """
    numbers = sorted(lives.alive_after(event), key=lambda number: (-lives.nbytes[number], number))
    by_category: dict[str, int] = {}
    modules: dict[tuple[str, ...], int] = {}
    trunks: dict[tuple[str, ...], int] = {}
    layers: dict[int, dict[str, int]] = {}
    for number in numbers:
        category, size = category_names[number], lives.rounded[number]
        by_category[category] = by_category.get(category, 0) + size
        path = path_of(lives.text("module", number), lives.text("operator", number))
        for leaves, parts in ((modules, of_any_layer(path)), (trunks, up_to_layer(path))):
            leaves[(*parts, category)] = leaves.get((*parts, category), 0) + size
        found = _LAYER.search(lives.text("module", number))
        row = layers.setdefault(int(found[1]) if found else -1, {})
        row[category] = row.get(category, 0) + size
    has_layers = max(layers, default=-1) >= 0
    listed, rest = numbers[:MOST_TENSORS], numbers[MOST_TENSORS:]
    return Alive(
        event=event,
        tensors=tuple(_tensor(lives, category_names, number) for number in listed),
        others=len(rest),
        others_bytes=sum(lives.nbytes[number] for number in rest),
        by_category=by_category,
        modules=tuple(tree_of(modules)),
        layer_tree=tuple(tree_of(trunks)) if has_layers else (),
        layers={str(layer) if layer >= 0 else OUTSIDE: layers[layer] for layer in sorted(layers) if has_layers},
    )


def _tensor(lives: Lives, category_names: Sequence[str], number: int) -> Tensor:
    death = lives.death[number]
    return Tensor(
        nbytes=lives.nbytes[number],
        category=category_names[number],
        module=lives.text("module", number),
        operator=lives.text("operator", number) or lives.text("tag", number),
        birth=lives.birth[number],
        death=death if death < lives.events else None,
    )


def path_of(module: str, operator: str) -> tuple[str, ...]:
    """Where in the tree a tensor hangs: by its module, or by the place in the program that made it."""
    module = module.partition(", ")[0]  # `owner, exp_avg`: a state hangs with its parameter
    if " > " in module:
        return tuple(module.split(" > "))
    if module:
        parts = module.split(".")
        return tuple(parts[:-1] if parts[-1] in _PARAMETERS and len(parts) > 1 else parts)
    return (operator or "unknown",)


def of_any_layer(path: tuple[str, ...]) -> tuple[str, ...]:
    """The same place in any layer: numbers left out."""
    return tuple(part for part in path if not part.isdecimal()) or path


def up_to_layer(path: tuple[str, ...]) -> tuple[str, ...]:
    """The layer that a place lies in, or the first part of a place outside of them."""
    for position, part in enumerate(path):
        if part.isdecimal() and position:
            return ("layers", part)
    return ("outside", path[-1])


def tree_of(leaves: dict[tuple[str, ...], int], most_nodes: int = MOST_NODES) -> Iterable[Node]:
    """A tree of paths whose last part is a category; its smallest parts are left out where they are too many."""
    totals: dict[tuple[str, ...], int] = {(): 0}
    kinds: dict[tuple[str, ...], set[str]] = {(): set()}
    for path, nbytes in leaves.items():
        for depth in range(len(path) + 1):
            part = path[:depth]
            totals[part] = totals.get(part, 0) + nbytes
            kinds.setdefault(part, set()).add(path[-1])
    kept = sorted(totals, key=lambda part: (-totals[part], len(part), part))[:most_nodes]
    positions: dict[tuple[str, ...], int] = {}
    for part in sorted(kept, key=lambda part: (len(part), -totals[part], part)):
        positions[part] = len(positions)
        only = kinds[part]
        yield Node(
            label=part[-1] if part else "",
            parent=positions[part[:-1]] if part else -1,
            nbytes=totals[part],
            category=next(iter(only)) if len(only) == 1 else "",
        )
