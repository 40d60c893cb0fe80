"""A function that depends on the sizes of its arguments alone leaves the same trail each time: seen once, then copied.

A refresh of a projector runs over a hundred operators, and a model has the same few shapes hundreds of times. What is
copied are births and deaths in their order, with what made them; nothing else may have happened: where a storage from
before died, or one was born that is neither dead nor returned, the trail is not used, and the function runs again.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from galore_mem.profiler.outcomes import Likeness
from galore_mem.profiler.recording import Life

if TYPE_CHECKING:
    from galore_mem.profiler.recorder import Recorder

KeyOf = Callable[..., Hashable]
"""From a call's arguments to what its trail depends on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trail:
    """What one call did."""

    codes: tuple[int, ...]
    """As in a recording, counted from the call's own first birth."""
    births: tuple[tuple[int, str, str], ...]
    """Bytes, operator and category of each birth."""
    shape: Any
    """Of what the call returned, as torch's pytrees describe it."""
    results: tuple[tuple[int, Likeness], ...]
    """Each returned tensor: the birth of its storage, and what it looks like."""


class Repeats:
    """Trails seen by one recorder."""

    def __init__(self, recorder: "Recorder") -> None:
        self._recorder = recorder
        self._trails: dict[Hashable, _Trail | None] = {}

    @contextmanager
    def of(self, owner: Any, name: str, key_of: KeyOf) -> Iterator[None]:  # noqa: ANN401
        """While entered, `owner.name` runs once for each key.

        Args:
            owner: a module or class.
            name: a function of it, which returns tensors that it made, and keeps none.
            key_of: given the same arguments, says what the call depends on.
        """
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            recorder = self._recorder
            key = (name, recorder.window, recorder.category_in_scope, key_of(*args, **kwargs))
            trail = self._trails.get(key)
            if trail is not None:
                return self._copy(trail)
            return self._watched(key, lambda: original(*args, **kwargs))

        setattr(owner, name, call)
        try:
            yield
        finally:
            setattr(owner, name, original)

    def _watched(self, key: Hashable, run: Callable[[], Any]) -> Any:  # noqa: ANN401
        recording = self._recorder.recording
        births, events = len(recording.lives), len(recording.events)
        borders = len(recording.borders)
        result = run()
        if len(recording.borders) == borders:
            self._trails[key] = self._trail(result, births, tuple(recording.events[events:]))
        return result

    def _trail(self, result: Any, first: int, codes: tuple[int, ...]) -> _Trail | None:  # noqa: ANN401
        """The trail of a call whose first birth had the number `first`; None where it is not the whole effect."""
        recorder = self._recorder
        leaves, shape = tree_flatten(result)
        lives = recorder.recording.lives[first:]
        results: list[tuple[int, Likeness]] = []
        for leaf in leaves:
            number = recorder.number_of(leaf) if leaf.__class__ is FakeTensor else None
            if number is None or number < first:
                return None
            results.append((number - first, Likeness(leaf)))
        dead = {-code - 1 for code in codes if code < 0}
        left = set(range(first, first + len(lives))) - dead
        if min(dead, default=first) < first or left != {first + birth for birth, _ in results}:
            return None
        if any(life.module != recorder.module for life in lives):
            return None
        return _Trail(
            codes=tuple(code - first if code > 0 else code + first for code in codes),
            births=tuple((life.nbytes, life.operator, life.category) for life in lives),
            shape=shape,
            results=tuple(results),
        )

    def _copy(self, trail: _Trail) -> Any:  # noqa: ANN401
        recorder = self._recorder
        recording, module = recorder.recording, recorder.module
        first = len(recording.lives)
        recording.lives += [
            Life(nbytes=nbytes, operator=operator, module=module, category=category)
            for nbytes, operator, category in trail.births
        ]
        recording.events.extend([code + first if code > 0 else code - first for code in trail.codes])
        storages = {birth: _storage(trail.births[birth][0]) for birth, _ in trail.results}
        for birth, storage in storages.items():
            recorder.watch(storage, first + birth)
        leaves = [likeness.over(storages[birth]) for birth, likeness in trail.results]
        return tree_unflatten(leaves, trail.shape)


def _storage(nbytes: int) -> torch.UntypedStorage:
    with torch._C._DisableTorchDispatch():
        return torch.empty((nbytes,), dtype=torch.uint8, device="meta").untyped_storage()


def sizes_of(*tensors: Tensor) -> Hashable:
    """What a trail depends on in tensors."""
    return tuple((tensor.shape, tensor.stride(), tensor.dtype) for tensor in tensors)
