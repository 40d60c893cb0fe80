"""The grammar of PYTORCH_CUDA_ALLOC_CONF, as torch 2.13 accepts it.

torch reads the string twice: `AcceleratorAllocatorConfig::parseArgs` (c10/core/AllocatorConfig.cpp) takes the keys
every accelerator knows and skips the others unread; `CUDAAllocatorConfig::parseArgs` (c10/cuda/CUDAAllocatorConfig.cpp)
takes CUDA's keys, skips the common ones and refuses the rest. Both passes stand here as two functions. Oddities are
kept because torch has them: separators are not checked (`max_split_size_mb,100` is accepted), numbers are read as C
reads them (`100abc` is 100, `-1` wraps around), and white space vanishes anywhere.
"""

import re
from collections.abc import Callable
from typing import Any

from estimators.allocator.settings import MIB, MIN_LARGE_ALLOC_BYTES, POWER2_INTERVALS, AllocatorSettings
from profiles.errors import InputError

_U64 = 1 << 64
_MAX_MIB = (_U64 - 1) // MIB
_TOKEN = re.compile(r"[,:\[\]]|[^,:\[\]]+")
_BLANKS = dict.fromkeys(map(ord, " \t\n\v\f\r"))
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DOUBLE = re.compile(
    r"[+-]?(?:0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)(?:[pP][+-]?[0-9]+)?"
    r"|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[iI][nN][fF]|[nN][aA][nN])"
)
_COMMON_KEYS = (
    "large_segment_size_mb",
    "max_split_size_mb",
    "max_non_split_rounding_mb",
    "garbage_collection_threshold",
    "roundup_power2_divisions",
    "expandable_segments",
    "pinned_use_background_threads",
)
_CUDA_FLAGS = (
    "release_lock_on_cudamalloc",
    "release_lock_on_hipmalloc",
    "pinned_use_cuda_host_register",
    "pinned_use_hip_host_register",
    "graph_capture_record_stream_reuse",
    "pinned_free_catch_all",
    "throw_on_cudamalloc_oom",
)
_CUDA_KEYS = (
    "backend",
    *_CUDA_FLAGS,
    "pinned_num_register_threads",
    "pinned_reserve_segment_size_mb",
    "per_process_memory_fraction",
)
_LONGEST_TEXT = 65_536


class _Tokens:
    """The string cut at `,`, `:`, `[` and `]`, white space dropped (`ConfigTokenizer`)."""

    def __init__(self, text: str) -> None:
        self.items: list[str] = _TOKEN.findall(text.translate(_BLANKS))

    def __len__(self) -> int:
        return len(self.items)

    def at(self, index: int) -> str:
        if index >= len(self.items):
            raise _refused("the string ends where a value was expected")
        return self.items[index]

    def integer(self, index: int) -> int:
        """As C's `stoull`: leading digits count, a minus sign wraps around."""
        found = _INTEGER.match(self.at(index))
        if found is None:
            raise _refused(f"{_quoted(self.at(index))} is not a number")
        digits = found.group().lstrip("+-0") or "0"
        if len(digits) > 20 or int(digits) >= _U64:
            raise _refused(f"{_quoted(self.at(index))} is too large")
        return -int(digits) % _U64 if found.group().startswith("-") else int(digits)

    def double(self, index: int) -> float:
        """As C's `stod`: decimal or hexadecimal, leading part counts."""
        found = _DOUBLE.match(self.at(index))
        if found is None:
            raise _refused(f"{_quoted(self.at(index))} is not a number")
        text = found.group()
        try:
            value = float.fromhex(text) if "x" in text.lower() else float(text)
        except OverflowError:
            value = float("inf")
        if value in (float("inf"), float("-inf")) and "n" not in text.lower():
            raise _refused(f"{_quoted(text)} is too large")
        return value

    def boolean(self, index: int) -> bool:
        if self.at(index) not in ("True", "False"):
            raise _refused(f"expected True or False, got {_quoted(self.at(index))}")
        return self.at(index) == "True"

    def skip(self, index: int) -> int:
        """From a key to the last token of its value (`skipKey`)."""
        index += 2
        if self.at(index) != "[":
            return index
        while True:
            index += 1
            if self.at(index) == "]":
                return index


def parse_settings(text: str) -> AllocatorSettings:
    """Settings from a PYTORCH_CUDA_ALLOC_CONF (or PYTORCH_ALLOC_CONF) string.

    Raises:
        InputError: torch would refuse this string; says which part and why.

    >>> parse_settings("expandable_segments:True,max_split_size_mb:128").max_split_size_bytes
    134217728
    """
    if len(text) > _LONGEST_TEXT:
        raise InputError("allocator settings are too long", f"{len(text)} characters", "give at most 65536")
    tokens = _Tokens(text)
    try:
        fields = _parse_common(tokens) | _parse_cuda(tokens)
    except _RefusedError as refusal:
        raise InputError(f"allocator settings {_quoted(text)} cannot be used", refusal.reason, _EXAMPLE) from None
    return AllocatorSettings(text=text, **fields)


_EXAMPLE = "write them as for torch, e.g. expandable_segments:True,max_split_size_mb:128"


def _quoted(text: str) -> str:
    quoted = repr(text[:80])
    return quoted if len(quoted) <= 80 else quoted[:77] + "..."


class _RefusedError(Exception):
    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def _refused(reason: str) -> _RefusedError:
    return _RefusedError(reason)


def _each_key(tokens: _Tokens, take: Callable[[str, int], int]) -> None:
    index = 0
    while index < len(tokens):
        index = take(tokens.at(index), index)
        index += 2 if index + 1 < len(tokens) else 1  # one token between two settings, unchecked, as in torch


def _parse_large_segment_size(tokens: _Tokens) -> dict[str, int]:
    """The first sweep: the other limits depend on this key, so torch looks for it anywhere before reading the rest."""
    large = 20
    index = 0
    while index < len(tokens):
        if tokens.at(index) == "large_segment_size_mb":
            index += 2
            large = tokens.integer(index)
            if large <= MIN_LARGE_ALLOC_BYTES // MIB:
                raise _refused("large_segment_size_mb must be > 10")
        index += 1
    large = min(large, _MAX_MIB) * MIB
    return {"large_segment_size_bytes": large, "max_non_split_rounding_bytes": large}


def _parse_common(tokens: _Tokens) -> dict[str, Any]:
    fields: dict[str, Any] = dict(_parse_large_segment_size(tokens))
    least = fields["large_segment_size_bytes"] // MIB

    def take(key: str, index: int) -> int:
        value = index + 2
        if key in ("max_split_size_mb", "max_non_split_rounding_mb"):
            size_mib = tokens.integer(value)
            if size_mib < least:
                raise _refused(f"{key} must be >= {least}")
            name = "max_split_size_bytes" if key == "max_split_size_mb" else "max_non_split_rounding_bytes"
            fields[name] = min(size_mib, _MAX_MIB) * MIB
        elif key == "garbage_collection_threshold":
            threshold = tokens.double(value)
            if not 0 < threshold < 1:
                raise _refused(f"{key} must lie between 0 and 1")
            fields[key] = threshold
        elif key == "roundup_power2_divisions":
            fields[key], value = _parse_divisions(tokens, value)
        elif key == "expandable_segments":
            fields[key] = tokens.boolean(value)
        elif key == "pinned_use_background_threads":
            tokens.boolean(value)
        else:
            return tokens.skip(index)
        return value

    _each_key(tokens, take)
    return fields


def _parse_divisions(tokens: _Tokens, index: int) -> tuple[tuple[int, ...], int]:
    """`4`, or `[256:1,512:2,1024:4,>:8]` in MiB (`parseRoundUpPower2Divisions`)."""
    if tokens.at(index) != "[":
        divisions = tokens.integer(index)
        _check_power_of_two(divisions, "roundup_power2_divisions")
        return (divisions,) * POWER2_INTERVALS, index
    table = [0] * POWER2_INTERVALS
    last, first = 0, True
    index += 1
    while tokens.at(index) != "]":
        boundary_at, index = index, index + 2
        divisions = tokens.integer(index)
        if divisions:
            _check_power_of_two(divisions, "roundup_power2_divisions")
        if tokens.at(boundary_at) == ">":
            table[last + 1 :] = [divisions] * (POWER2_INTERVALS - last - 1)
        else:
            boundary = tokens.integer(boundary_at)
            _check_power_of_two(boundary, "an interval of roundup_power2_divisions")
            last = min(boundary.bit_length() - 1, POWER2_INTERVALS - 1)
            if first:
                table[:last] = [divisions] * last
                first = False
            table[last] = divisions
        index += 1 if tokens.at(index + 1) == "]" else 2
    return tuple(table), index


def _check_power_of_two(value: int, what: str) -> None:
    if value <= 0 or value & (value - 1):
        raise _refused(f"{what} must be a power of 2, got {value}")


def _parse_cuda(tokens: _Tokens) -> dict[str, Any]:
    fields: dict[str, Any] = {}

    def take(key: str, index: int) -> int:
        value = index + 2
        if key == "backend":
            if tokens.at(value) not in ("native", "cudaMallocAsync"):
                raise _refused(f"unknown backend {_quoted(tokens.at(value))}: native or cudaMallocAsync")
            fields[key] = tokens.at(value)
        elif key in _CUDA_FLAGS:
            tokens.boolean(value)
        elif key == "pinned_num_register_threads":
            _check_power_of_two(tokens.integer(value), key)
            if tokens.integer(value) > 128:
                raise _refused(f"{key} must be <= 128")
        elif key == "pinned_reserve_segment_size_mb":
            if tokens.integer(value) == 0:
                raise _refused(f"{key} must be > 0")
        elif key == "per_process_memory_fraction":
            fraction = tokens.double(value)
            if not 0 <= fraction <= 1:
                raise _refused(f"{key} must lie between 0 and 1")
            fields[key] = fraction
        elif key in _COMMON_KEYS:
            return tokens.skip(index)
        else:
            raise _refused(f"unknown key {_quoted(key)}{_nearest(key)}")
        return value

    _each_key(tokens, take)
    return fields


def _nearest(key: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(key[:80], (*_COMMON_KEYS, *_CUDA_KEYS), n=1)
    return f": did you mean {near[0]}?" if near else ""
