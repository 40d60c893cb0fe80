"""`--gpu local`: the GPUs of this machine as their driver (NVML) describes them, and what others use of them now."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from galore_mem.errors import NoDeviceError
from profiles.gpus import CardClass, Gpu, derived_gpu, derived_usable_bytes, find_device

NAME_A_CARD = "name a card instead, such as --gpu 4090; galore-mem gpus lists them"
"""What helps whoever only wants to plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalGpu:
    """One GPU of this machine."""

    index: int
    """Its place in nvidia-smi's order."""
    uuid: str
    device_name: str
    gpu: Gpu
    """The catalogue's card, or one derived from the reading; usable memory is the reading's where that is less."""
    total_bytes: int
    """What nvidia-smi prints as total."""
    other_use_bytes: int
    """Memory that other processes hold now: counts like `--other-use`."""


def local_gpus() -> tuple[LocalGpu, ...]:
    """The GPUs that a training process started here would see, in nvidia-smi's order.

    Raises:
        NoDeviceError: no driver, no GPU, all hidden or split by MIG, or NVML does not answer.
    """
    with _nvml() as nvml:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        if not handles:
            raise NoDeviceError("the NVIDIA driver sees no GPU", "", NAME_A_CARD)
        names = [_text(nvml.nvmlDeviceGetName(handle)) for handle in handles]
        uuids = [_text(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
        chosen = _visible(names, uuids)
        whole = [index for index in chosen if not _is_split(nvml, handles[index])]
        if not whole:
            raise NoDeviceError(
                f"GPU {chosen[0]} ({names[chosen[0]]}) is split by MIG",
                "plans are for whole cards",
                f"switch MIG off (nvidia-smi -i {chosen[0]} -mig 0), or {NAME_A_CARD}",
            )
        return tuple(_local_gpu(nvml, handles[index], index, names[index], uuids[index]) for index in whole)


@contextmanager
def _nvml() -> Iterator[Any]:
    """The NVML binding, started; whatever goes wrong with it becomes one line."""
    try:
        import pynvml
    except ImportError as error:
        raise NoDeviceError(
            f"the GPUs of this machine cannot be read: {error}", "", "run: pip install nvidia-ml-py"
        ) from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        raise NoDeviceError("this machine has no NVIDIA driver", "libnvidia-ml was not found", NAME_A_CARD) from None
    except pynvml.NVMLError_DriverNotLoaded:
        raise NoDeviceError("the NVIDIA driver is installed but not loaded", "", f"load it, or {NAME_A_CARD}") from None
    except pynvml.NVMLError as error:
        raise _silent_driver(error) from None
    try:
        yield pynvml
    except pynvml.NVMLError as error:
        raise _silent_driver(error) from None
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _silent_driver(error: Exception) -> NoDeviceError:
    return NoDeviceError(
        "the NVIDIA driver does not answer", f"NVML says: {error}", f"see nvidia-smi, or {NAME_A_CARD}"
    )


def _local_gpu(nvml: Any, handle: Any, index: int, device_name: str, uuid: str) -> LocalGpu:  # noqa: ANN401
    total, reserved, used = _memory(nvml, handle)
    # An old driver counts its own reserve as used and does not say how much it is.
    usable = total - reserved if reserved is not None else derived_usable_bytes(total)
    other_use = used if reserved is not None else max(0, used - (total - usable))
    source = "NVML total less the driver's reserve" if reserved is not None else "NVML total less the largest loss seen"
    gpu = find_device(device_name, total)
    if gpu is None:
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        gpu = derived_gpu(
            name=device_name,
            card_class=_card_class(device_name),
            compute_capability=(major, minor),
            total_bytes=total,
            usable_bytes=usable,
            usable_source=f"derived: {source}",
        )
    elif usable < gpu.usable_bytes:
        gpu = replace(gpu, usable_bytes=usable, usable_source=f"this card: {source}")
    return LocalGpu(
        index=index, uuid=uuid, device_name=device_name, gpu=gpu, total_bytes=total, other_use_bytes=other_use
    )


def _memory(nvml: Any, handle: Any) -> tuple[int, int | None, int]:  # noqa: ANN401
    """Total, reserved (None where the driver is too old to say) and used bytes."""
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except (nvml.NVMLError_FunctionNotFound, nvml.NVMLError_NotSupported, nvml.NVMLError_InvalidArgument):
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        return int(memory.total), None, int(memory.used)
    return int(memory.total), int(memory.reserved), int(memory.used)


def _is_split(nvml: Any, handle: Any) -> bool:  # noqa: ANN401
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError:
        return False  # the card does not know MIG
    return bool(current)


def _visible(names: Sequence[str], uuids: Sequence[str]) -> list[int]:
    """Indices that CUDA_VISIBLE_DEVICES leaves, by CUDA's rules.

    The list ends at the first entry that means nothing, and a repeated card empties it.

    NVML counts in PCI order, CUDA by speed unless CUDA_DEVICE_ORDER says otherwise; a number is therefore only
    understood where both orders are the same.

    Raises:
        NoDeviceError: it hides all of them, names a MIG slice, or its numbers cannot be told apart.
    """
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    if setting is None:
        return list(range(len(names)))
    chosen: list[int] = []
    for entry in setting.split(","):
        place = _place(entry.strip(), names, uuids, setting)
        if place is None:
            break
        if place in chosen:
            chosen = []
            break
        chosen.append(place)
    if not chosen:
        raise NoDeviceError(f"CUDA_VISIBLE_DEVICES={setting} hides every GPU", "", f"unset it, or {NAME_A_CARD}")
    return chosen


def _place(entry: str, names: Sequence[str], uuids: Sequence[str], setting: str) -> int | None:
    if entry.startswith("MIG-"):
        raise NoDeviceError(
            f"CUDA_VISIBLE_DEVICES={setting} names a MIG slice", "plans are for whole cards", NAME_A_CARD
        )
    if entry.startswith("GPU-"):
        matching = [index for index, uuid in enumerate(uuids) if uuid.startswith(entry)]
        return matching[0] if len(matching) == 1 else None
    if not (entry.isascii() and entry.isdigit()) or int(entry) >= len(names):
        return None
    if os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID" and len(set(names)) > 1:
        raise NoDeviceError(
            f"CUDA_VISIBLE_DEVICES={setting} is ambiguous",
            "CUDA numbers these different cards by speed, the driver by slot",
            "set CUDA_DEVICE_ORDER=PCI_BUS_ID",
        )
    return int(entry)


def _card_class(device_name: str) -> CardClass:
    if "GeForce" in device_name or "TITAN" in device_name:
        return "consumer"
    return "workstation" if "RTX" in device_name or "Quadro" in device_name else "data-centre"


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
