"""What does this machine's GPU take for itself? The context, workspaces and decompositions, measured in seconds."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from galore_mem.answers.calibrated import VARIABLE, calibration_path
from galore_mem.answers.validation.costs import SVD_RATE
from galore_mem.answers.validation.shelf import ready_folder
from galore_mem.errors import GaloreMemError, UsageError
from galore_mem.tapes.atomic import write_bytes
from profiles.calibration import (
    Calibration,
    SvdScratch,
    calibrations_bytes,
    read_calibrations,
    with_newest,
)
from profiles.gpus import GIB, MIB

SVD_SHAPES = (
    *((512, 512), (512, 1376), (768, 768), (768, 2048), (1024, 1024), (1024, 2736), (2048, 2048), (2048, 5461)),
    *((2560, 2560), (2560, 6848), (4096, 4096), (4096, 11008), (4096, 14336)),
)
"""Sides of the matrices of LLaMA from 60M to 8B, and of Mistral 7B; cheap ones first."""
SVD_SECONDS = 25.0
"""No decomposition is begun that should end later."""
LEAST_CONTEXT_BYTES, MOST_CONTEXT_BYTES = 32 * MIB, 8 * GIB
"""Outside of these a reading is of something else."""
Told = Callable[[str], object]


class Probe(Protocol):
    """A GPU whose allocator nobody else in this process has used."""

    device_name: str
    driver: str
    torch: str

    def start(self) -> None:
        """Create the context."""

    def total_bytes(self) -> int:
        """Of memory, as torch reports it."""

    def process_bytes(self) -> tuple[int, str]:
        """What this process holds of the GPU, and whether the driver says so of the `process` or of the `card`."""

    def reserved_bytes(self) -> int:
        """Of it, what torch's allocator holds."""

    def workspace_bytes(self) -> tuple[int, int]:
        """Allocated bytes that stay after a thread's first matrix product: this thread's, and autograd's."""

    def train(self) -> None:
        """A small step of training, in half precision."""

    def run_everything(self) -> None:
        """Every attention kernel, fp32, decompositions: whatever makes the driver load more kernels."""

    def svd_scratch_bytes(self, rows: int, columns: int) -> int:
        """What one decomposition takes beside its input and its factors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """A calibration, where it was written, and what a person should know of it."""

    calibration: Calibration
    path: str
    seconds: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The object of the JSON output."""
        return {
            "schema": "galore-mem/calibrate/1",
            "calibration": asdict(self.calibration),
            "path": self.path,
            "seconds": round(self.seconds, 1),
            "notes": list(self.notes),
        }


def calibrate(*, probe: Probe | None = None, told: Told | None = None) -> Calibrated:
    """Measure this machine's first GPU, and write down what `plan` and `trace` will use from then on.

    Args:
        probe: another GPU than torch's.
        told: called with the name of each stage.

    Raises:
        NoDeviceError: no GPU that can be used.
        GaloreMemError: the driver's figures make no sense, for instance because others' memory changed meanwhile.
        UsageError: the file cannot be written, or a person has switched calibration off.
        InputError: the file that is there cannot be read; it is left alone.
    """
    told = told or (lambda stage: None)
    start = time.monotonic()
    path = _path()
    before = read_calibrations(path)
    if probe is None:
        from galore_mem.answers.cuda_probe import CudaProbe

        told("importing torch")
        probe = CudaProbe()
    found, notes = _measured(probe, told)
    write_bytes(path, calibrations_bytes(with_newest(before, found)))
    return Calibrated(calibration=found, path=path, seconds=time.monotonic() - start, notes=notes)


def _path() -> str:
    import os

    path = calibration_path()
    if path is None:
        raise UsageError(f"{VARIABLE} is empty, which switches calibration off", "", f"unset {VARIABLE}")
    ready_folder(os.path.dirname(path) or os.curdir)
    return path


def _measured(probe: Probe, told: Told) -> tuple[Calibration, tuple[str, ...]]:
    notes: list[str] = []
    told("context")
    probe.start()
    told("workspaces")
    own, autograd = probe.workspace_bytes()
    if autograd not in (0, own):
        notes.append(
            f"this thread's cuBLAS workspace takes {own:,} bytes and autograd's {autograd:,}: the larger counts"
        )
    told("training kernels")
    probe.train()
    low, read_from = _context_bytes(probe)
    told("attention and decompositions")
    svd = _svd(probe, notes)
    probe.run_everything()
    high, _ = _context_bytes(probe)
    if read_from == "card":
        notes.append("the driver does not tell what this process holds: its context is a difference on the whole card")
    calibration = Calibration(
        device_name=probe.device_name,
        driver=probe.driver,
        torch=probe.torch,
        measured_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        total_bytes=probe.total_bytes(),
        context_low_bytes=low,
        context_high_bytes=max(low, high),
        read_from=read_from,
        workspace_bytes=max(own, autograd),
        svd=svd,
    )
    return calibration, tuple(notes)


def _context_bytes(probe: Probe) -> tuple[int, str]:
    held, read_from = probe.process_bytes()
    context = held - probe.reserved_bytes()
    if not LEAST_CONTEXT_BYTES <= context <= MOST_CONTEXT_BYTES:
        raise GaloreMemError(
            f"a CUDA context of {context / MIB:,.0f} MiB makes no sense",
            "other processes changed what they hold meanwhile, or the driver does not count this one",
            "run it again while nothing else uses the GPU",
        )
    return context, read_from


def _svd(probe: Probe, notes: list[str]) -> tuple[SvdScratch, ...]:
    found: list[SvdScratch] = []
    start = time.monotonic()
    for shorter, longer in SVD_SHAPES:
        if time.monotonic() - start + shorter * shorter * longer / SVD_RATE > SVD_SECONDS:
            notes.append(f"decompositions from {shorter} x {longer} on were left out, for want of time")
            break
        try:
            scratch = probe.svd_scratch_bytes(longer, shorter)
        except MemoryError:
            notes.append(f"the GPU has no room to decompose {shorter} x {longer}")
            break
        found.append(SvdScratch(shorter=shorter, longer=longer, scratch_bytes=scratch))
    return tuple(found)
