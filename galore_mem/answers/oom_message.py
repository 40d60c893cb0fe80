"""Reading torch's CUDA out-of-memory errors, in every wording from torch 1.0 to 2.13.

Wordings (c10/cuda/CUDACachingAllocator.cpp, `malloc` and `reportProcessMemoryInfo`):

- to 1.4: `(GPU 0; 10.92 GiB total capacity; 7.63 GiB already allocated; 1.46 GiB free; 1.12 GiB cached)`, where cached
  means reserved but not allocated;
- 1.5 to 2.0: the same with `8.75 GiB reserved in total by PyTorch`, and `8.00 GiB allowed;` under a memory fraction;
- from 2.1: sentences, with the other processes on the card and, from 2.2, private pools; 2.1 writes `capacty`, and some
  releases print the device's number as a control character;
- from 2.11: a warning before it, `memory allocation failed with OOM on device 0 while trying to allocate N bytes`, with
  exact bytes. It stands alone where a retry succeeded.

What it calls "tried to allocate" is the segment that the allocator asked the driver for, not the tensor.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

from galore_mem.errors import UsageError

Wording = Literal["cached", "reserved", "sentences", "warning", "unsized"]
SIZE = r"(\d+(?:\.\d+)?) (bytes|KiB|MiB|GiB)"
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_PREFIX = re.compile(r"^[ \t>|#*]*(?:\[(?:default|rank)?\d+\]:?[ \t]*)*(?:[EWI]:?[ \t])?", re.MULTILINE)
_START = re.compile(r"(?:CUDA |HIP )?[Oo]ut of memory\. Tried to allocate " + SIZE)
_WARNING = re.compile(
    r"memory allocation failed with OOM on device (\d+) while trying to allocate (\d+) bytes"
    r" \(free: (\d+), total: (\d+)\)"
)
_UNSIZED = re.compile(
    r"CUDA error: out of memory|cuda runtime error \(2\) ?: out of memory|CUBLAS_STATUS_ALLOC_FAILED"
    r"|CUSOLVER_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|Cuda failure (?:2 )?'out of memory'"
)
_OTHER_BACKENDS = re.compile(r"\b(MPS|XPU|NPU|MLU|MUSA) (?:backend )?out of memory")
_FRAME = re.compile(r"([\w./\\<>-]+\.py)\"?(?:, line \d+,|:\d+,)? in ([\w.<>]+)")
_TRACEBACK_CHARACTERS = 20_000
_MESSAGE_CHARACTERS = 3000
"""Where several processes share a card the sentences grow; each takes 45 characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A size as a message prints it: two digits after the point."""

    nbytes: int
    text: str

    @property
    def doubt_bytes(self) -> int:
        """Half of the last digit printed."""
        number, unit = self.text.split()
        return round(_UNITS[unit] * 0.005) if "." in number else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherProcess:
    """A process that the driver sees on the card."""

    pid: int
    used: Size


@dataclass(frozen=True, slots=True, kw_only=True)
class OomMessage:
    """One error, as far as its wording says."""

    wording: Wording
    text: str
    """On one line."""
    frames: tuple[str, ...] = ()
    """The traceback before it, outermost call first, as `file: function`."""
    device: int | None = None
    requested: Size | None = None
    """The segment that the driver was asked for."""
    exact_requested_bytes: int | None = None
    """The same to the byte, where the warning was found too."""
    total: Size | None = None
    exact_total_bytes: int | None = None
    free: Size | None = None
    """Left at the driver, after all cached memory that could be given back had been."""
    allowed: Size | None = None
    """By `set_per_process_memory_fraction`."""
    this_process: Size | None = None
    """All that the process holds, the CUDA context included, as NVML says."""
    processes: tuple[OtherProcess, ...] = ()
    """Named by number. In a container the own process appears here too, under the number it has outside."""
    allocated: Size | None = None
    """In blocks that are in use, private pools included."""
    private_pools: Size | None = None
    unallocated: Size | None = None
    """Reserved, but in no block in use: pieces between blocks, for whole free segments had been given back."""

    @property
    def reserved_bytes(self) -> int | None:
        """What the allocator held."""
        if self.allocated is None or self.unallocated is None:
            return None
        return self.allocated.nbytes + self.unallocated.nbytes


def says_out_of_memory(text: str) -> bool:
    """Whether an error of this kind stands in a text, whatever wording has it.

    >>> says_out_of_memory("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), says_out_of_memory("a.log")
    (True, False)
    """
    return any(words in text for words in ("out of memory", "OOM on device")) or _UNSIZED.search(text) is not None


def read_messages(text: str, name: str) -> tuple[OomMessage, ...]:
    """Every out-of-memory error in a text, in order.

    Args:
        text: an error as pasted, or a whole log.
        name: what to call it in errors.

    Raises:
        UsageError: there is none.
    """
    plain = " ".join(_PREFIX.sub("", text).split())
    warnings = list(_WARNING.finditer(plain))
    starts = list(_START.finditer(plain))
    found = []
    for number, start in enumerate(starts):
        stop = starts[number + 1].start() if number + 1 < len(starts) else len(plain)
        body = plain[start.start() : min(stop, start.start() + _MESSAGE_CHARACTERS)]
        earlier = [w for w in warnings if (starts[number - 1].end() if number else 0) <= w.start() < start.start()]
        message = _in_brackets(body) if _is_in_brackets(body) else _in_sentences(body)
        message = _with_warning(message, earlier[-1]) if earlier else message
        since = starts[number - 1].end() if number else 0
        found.append(replace(message, frames=_frames(plain[since : start.start()])))
    if not found:
        found = [_from_warning(warning) for warning in warnings]
    if not found:
        found = [
            OomMessage(wording="unsized", text=hit[0], frames=_frames(plain[: hit.start()]))
            for hit in _UNSIZED.finditer(plain)
        ]
    if not found:
        raise _nothing(plain, name)
    return tuple(found)


def _nothing(plain: str, name: str) -> UsageError:
    backend = _OTHER_BACKENDS.search(plain)
    if backend:
        return UsageError(
            f"{name} holds an out-of-memory error of {backend[1]}",
            "only those of CUDA and ROCm can be read",
            "plan the run for a CUDA card instead: galore-mem plan MODEL --gpu NAME",
        )
    return UsageError(
        f"{name} holds no CUDA out-of-memory error",
        "looked for 'CUDA out of memory. Tried to allocate'",
        "paste the whole message that torch printed",
    )


def _size(number: str, unit: str) -> Size:
    return Size(nbytes=round(float(number) * _UNITS[unit]), text=f"{number} {unit}")


def _one(pattern: str, body: str) -> Size | None:
    found = re.search(pattern, body)
    return _size(found[1], found[2]) if found else None


def _frames(before: str) -> tuple[str, ...]:
    """The last traceback of a text, which may be Python's or IPython's."""
    recent = before[-_TRACEBACK_CHARACTERS:]
    start = recent.rfind("Traceback (most recent call last)")
    return tuple(f"{file}: {function}" for file, function in _FRAME.findall(recent[max(start, 0) :]))


def _is_in_brackets(body: str) -> bool:
    return " total capacity;" in body and " already allocated" in body


def _with_warning(message: OomMessage, warning: re.Match[str]) -> OomMessage:
    """With exact sizes, if the warning is about the same request."""
    exact = int(warning[2])
    if message.requested is None or abs(exact - message.requested.nbytes) > message.requested.doubt_bytes + 1:
        return message
    return replace(message, exact_requested_bytes=exact, exact_total_bytes=int(warning[4]))


def _in_brackets(body: str) -> OomMessage:
    """To torch 2.0."""
    end = re.search(r"(?:cached|reserved in total by PyTorch)\)?", body)
    allocated, cached = _one(SIZE + " already allocated", body), _one(SIZE + " cached", body)
    reserved = _one(SIZE + " reserved in total", body)
    if reserved is not None and allocated is not None:
        rest = max(0, reserved.nbytes - allocated.nbytes)
        cached = Size(nbytes=rest, text=size_text(rest))
    device = re.search(r"GPU (\d+);", body)
    return OomMessage(
        wording="reserved" if reserved is not None else "cached",
        text=body[: end.end()] if end else body[:400],
        device=int(device[1]) if device else None,
        requested=_one("allocate " + SIZE, body),
        total=_one(SIZE + " total capacity", body),
        free=_one(SIZE + " free;", body),
        allowed=_one(SIZE + " allowed;", body),
        allocated=allocated,
        unallocated=cached,
    )


def _in_sentences(body: str) -> OomMessage:
    """From torch 2.1."""
    end = re.search(r"reserved by PyTorch but unallocated\.?", body)
    text = body[: end.end()] if end else body[:600]
    device = re.search(r"GPU (\d+) has a total", text)
    return OomMessage(
        wording="sentences",
        text=text,
        device=int(device[1]) if device else None,
        requested=_one("allocate " + SIZE, text),
        total=_one(r"total capaci?ty of " + SIZE, text),
        free=_one(r"of which " + SIZE + " is free", text),
        allowed=_one(SIZE + " allowed;", text),
        this_process=_one(r"this process has " + SIZE + " memory in use", text),
        processes=tuple(
            OtherProcess(pid=int(hit[1]), used=_size(hit[2], hit[3]))
            for hit in re.finditer(r"Process (\d+) has " + SIZE + " memory in use", text)
        ),
        allocated=_one(SIZE + " is allocated by PyTorch", text),
        private_pools=_one(r"with " + SIZE + " allocated in private pools", text),
        unallocated=_one(SIZE + " is reserved by PyTorch but unallocated", text),
    )


def _from_warning(warning: re.Match[str]) -> OomMessage:
    device, requested, free, total = (int(number) for number in warning.groups())
    return OomMessage(
        wording="warning",
        text=warning[0],
        device=device,
        requested=Size(nbytes=requested, text=size_text(requested)),
        exact_requested_bytes=requested,
        total=Size(nbytes=total, text=size_text(total)),
        exact_total_bytes=total,
        free=Size(nbytes=free, text=size_text(free)),
    )


def size_text(nbytes: int) -> str:
    """Bytes as torch prints them in its errors (`format_size`).

    >>> size_text(580911104)
    '554.00 MiB'
    """
    if nbytes <= 1024:
        return f"{nbytes} bytes"
    for unit in ("KiB", "MiB"):
        if nbytes <= 1024 * _UNITS[unit]:
            return f"{nbytes / _UNITS[unit]:.2f} {unit}"
    return f"{nbytes / _UNITS['GiB']:.2f} GiB"
