"""What operators return for arguments of the same shapes: fake tensors answer anew each time, and slowly.

A fake tensor has sizes and no data, so what an operator makes of it follows from sizes, strides, offsets, dtypes and
plain values alone. torch keeps such outcomes itself (`FakeTensorMode._cached_dispatch_impl`), yet takes longer to look
one up than most kernels to run. Here an outcome is learnt from torch's own answer, once, and then given in its place.
Whatever does not reduce to sizes is left to torch: values, constants, sparse tensors, operators of other libraries.
"""

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor, FakeTensorMode

_aten = torch.ops.aten
_LIBRARIES = frozenset({"aten", "prims", "bitsandbytes", "galore_mem"})
_TAGS = frozenset({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.inplace_view})
_SETS_STORAGES = frozenset({"set_", "resize_", "resize_as_", "_resize_output_", "lift", "lift_fresh", "_unsafe_view"})
_PLAIN = frozenset(
    {int, float, bool, str, type(None), torch.dtype, torch.layout, torch.memory_format, torch.device, torch.Size}
)

_Key = tuple[Any, ...]
_Given = list[Any]
"""The tensors among the arguments of a call, lists spread out."""
_Outcome = Callable[[_Given], Any]


class _Unkeyed(Exception):  # noqa: N818  (a signal between functions of this file)
    """The arguments do not reduce to sizes."""


class Likeness:
    """Makes fake tensors of one's sizes, strides, dtype and device.

    torch's constructor of fake tensors checks for longer than all the rest takes: attributes are copied instead.
    """

    __slots__ = ("_attributes", "device", "dtype", "offset", "size", "stride")

    def __init__(self, tensor: FakeTensor) -> None:
        self.size, self.stride, self.dtype = tensor.shape, tensor.stride(), tensor.dtype
        self.offset, self.device = tensor.storage_offset(), tensor.fake_device
        with torch._C._DisableTorchDispatch():
            elem = torch.empty((0,), dtype=self.dtype, device="meta")
        self._attributes = dict(FakeTensor(tensor.fake_mode, elem, self.device).__dict__)

    def fresh(self) -> Tensor:
        """One with a storage of its own, as large as sizes and strides need."""
        with torch._C._DisableTorchDispatch():
            return self._wrap(torch.empty_strided(self.size, self.stride, dtype=self.dtype, device="meta"))

    def over(self, storage: torch.UntypedStorage) -> Tensor:
        """One over a storage that is there."""
        with torch._C._DisableTorchDispatch():
            elem = torch.empty((0,), dtype=self.dtype, device="meta")
            elem.set_(storage, self.offset, self.size, self.stride)
            return self._wrap(elem)

    def _wrap(self, elem: Tensor) -> Tensor:
        made = Tensor._make_subclass(FakeTensor, elem, False, dispatch_device=True, device_for_backend_keys=self.device)
        torch._C._set_throw_on_mutable_data_ptr(made)
        made.__dict__.update(self._attributes)
        return made


def _fresh(tensor: FakeTensor) -> _Outcome:
    """A new tensor with a storage of its own."""
    likeness = Likeness(tensor)
    return lambda given: likeness.fresh()


def _view(tensor: FakeTensor, place: int) -> _Outcome:
    """A new tensor over the storage of an argument."""
    likeness = Likeness(tensor)
    return lambda given: likeness.over(given[place].untyped_storage())


def _nothing(given: _Given) -> None:
    """No tensor."""


class Outcomes:
    """Outcomes learnt so far.

    Args:
        mode: the fake mode whose tensors are met; others are left to torch.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        self._mode = mode
        self._known: dict[_Key, _Outcome] = {}
        self._learns: dict[int, bool] = {}
        """By the identity of an operator, which lives as long as torch: its hash is slow."""

    def run(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """What `func(*args, **kwargs)` returns."""
        learns = self._learns.get(id(func))
        if learns is None:
            learns = self._learns[id(func)] = _reduces_to_sizes(func)
        if not learns:
            return func(*args, **kwargs)
        given: _Given = []
        try:
            key = self._key(func, args, kwargs, given)
            known = self._known.get(key)
        except (_Unkeyed, TypeError, RuntimeError):
            return func(*args, **kwargs)
        if known is not None:
            return known(given)
        result = func(*args, **kwargs)
        if self._key(func, args, kwargs, []) == key:
            self._learn(func, key, given, result)
        return result

    def _key(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], given: _Given) -> _Key:  # noqa: ANN401
        """What the outcome depends on; arguments that are tensors go to `given`."""
        parts: list[Any] = [id(func), torch.get_default_dtype(), torch.is_inference_mode_enabled()]
        counts = not func._opname.startswith("_foreach")  # no list operator makes a size of a number
        self._describe(args, parts, given, counts)
        for name, value in kwargs.items():
            parts.append(name)
            self._describe((value,), parts, given, counts)
        return tuple(parts)

    def _describe(self, values: Any, parts: list[Any], given: _Given, counts: bool) -> None:  # noqa: ANN401
        """Append what matters of each value; of plain numbers only their kind unless a number `counts`."""
        for value in values:
            kind = value.__class__
            if kind is FakeTensor:
                if value.constant is not None or value.fake_mode is not self._mode:
                    raise _Unkeyed
                parts += (value.shape, value.stride(), value.dtype, value.storage_offset(), value.fake_device)
                given.append(value)
            elif kind in _PLAIN:
                parts += (kind, value) if counts or kind is not float else (kind,)
            elif kind is list or kind is tuple:
                parts += (kind, len(value))
                self._describe(value, parts, given, counts)
            elif kind is torch.Generator:
                parts.append(kind)
            else:
                raise _Unkeyed

    def _learn(self, func: Any, key: _Key, given: _Given, result: Any) -> None:  # noqa: ANN401
        try:
            if isinstance(result, list | tuple):
                kind, parts = type(result), [self._outcome(leaf, given) for leaf in result]
                self._known[key] = lambda given: kind([part(given) for part in parts])
            else:
                self._known[key] = self._outcome(result, given)
        except _Unkeyed:
            self._learns[id(func)] = False

    def _outcome(self, leaf: Any, given: _Given) -> _Outcome:  # noqa: ANN401
        if leaf is None:
            return _nothing
        for place, argument in enumerate(given):
            if argument is leaf:
                return itemgetter(place)
        if leaf.__class__ is not FakeTensor or leaf.constant is not None or leaf.layout is not torch.strided:
            raise _Unkeyed
        storage = leaf.untyped_storage()
        for place, argument in enumerate(given):
            if argument.untyped_storage()._cdata == storage._cdata:
                return _view(leaf, place)
        outcome = _fresh(leaf)
        if outcome(given).untyped_storage().nbytes() != storage.nbytes() or leaf.storage_offset():
            raise _Unkeyed
        return outcome


def _reduces_to_sizes(func: Any) -> bool:  # noqa: ANN401
    if func.namespace not in _LIBRARIES or func._opname in _SETS_STORAGES:
        return False
    return _TAGS.isdisjoint(func.tags)
