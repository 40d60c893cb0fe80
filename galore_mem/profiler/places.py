"""Where in a model an operator runs: in forward by the modules entered, in backward by what the node was made by."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_LAYER = re.compile(r"\.(?:layers|h|blocks|layer|block)\.(\d+)(?:\.|$)")
OUTSIDE = -1
"""The layer of code that belongs to none."""


def layer_of(path: str) -> int:
    """The number of the decoder layer that a module path lies in."""
    found = _LAYER.search(f".{path}")
    return int(found[1]) if found else OUTSIDE


class Places:
    """Follows the modules of one model.

    Autograd numbers nodes as they are made, so the module whose forward made a node is found from its number.
    Recomputation under checkpointing enters modules inside backward; the modules entered then take precedence.
    """

    def __init__(self) -> None:
        self._stack: list[str] = []
        self._numbers: list[int] = []
        self._paths: list[str] = []
        self.last_layer = OUTSIDE

    @contextmanager
    def following(self, model: nn.Module) -> Iterator[None]:
        """Hook every module of the model while entered."""
        handles: list[Any] = []
        for name, module in model.named_modules():
            if layer_of(name) != OUTSIDE:  # of encoder and decoder, the decoder comes last
                self.last_layer = layer_of(name)
            handles.append(module.register_forward_pre_hook(self._entering(name), prepend=True))
            handles.append(module.register_forward_hook(self._leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._stack.clear()

    @contextmanager
    def following_any(self, started: Callable[[nn.Module, str], object]) -> Iterator[None]:
        """Follow whatever modules run while entered, named from the outermost one that does.

        Args:
            started: called with that module, and what its own name is, whenever none runs yet.
        """
        names: dict[int, str] = {}

        def enter(module: nn.Module, args: object) -> None:
            if not self._stack:
                if id(module) not in names:
                    self._name(module, names)
                started(module, names[id(module)])
            self._stack.append(names.get(id(module), self.entered))
            self._note()

        hooks = torch.nn.modules.module
        handles = (
            hooks.register_module_forward_pre_hook(enter),
            hooks.register_module_forward_hook(self._leave, always_call=True),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._stack.clear()

    def _name(self, root: nn.Module, names: dict[int, str]) -> None:
        """The first root's modules are named as in itself; those of others begin with their class."""
        prefix = type(root).__name__ if names else ""
        for name, module in root.named_modules():
            path = ".".join(filter(None, (prefix, name)))
            names.setdefault(id(module), path)
            self.last_layer = max(self.last_layer, layer_of(path))

    def _entering(self, name: str) -> Any:  # noqa: ANN401
        def enter(module: nn.Module, args: object) -> None:
            self._stack.append(name)
            self._note()

        return enter

    def _leave(self, module: nn.Module, args: object, output: object) -> None:
        if self._stack:
            self._stack.pop()
        self._note()

    def _note(self) -> None:
        """From this number on, nodes belong to the innermost module."""
        number = torch._C._autograd._get_sequence_nr()
        if self._numbers and number <= self._numbers[-1]:
            self._paths[-1] = self.entered
        else:
            self._numbers.append(number)
            self._paths.append(self.entered)

    @property
    def entered(self) -> str:
        """The innermost module whose forward runs; empty outside."""
        return self._stack[-1] if self._stack else ""

    @property
    def in_forward(self) -> bool:
        """Whether any module's forward runs, be it for the first time or again."""
        return bool(self._stack)

    def of_node(self, number: int) -> str:
        """The module whose forward made the autograd node of that number."""
        index = bisect_right(self._numbers, number) - 1
        return self._paths[index] if index >= 0 else ""
