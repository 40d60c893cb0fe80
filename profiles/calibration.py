"""Calibrations: what a card of one machine was measured to take for itself, beside what the catalogue knows of it."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from profiles.fields import Fields, read_object
from profiles.gpus import GIB, Gpu

SCHEMA = "galore-mem/calibration/1"
LIKE = 0.1
"""Cards that share a name differ more in size than one card's readings do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SvdScratch:
    """What torch.linalg.svd of one fp32 matrix takes beside its input and its factors."""

    shorter: int
    longer: int
    scratch_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One card under one driver and one torch. Sizes are bytes."""

    device_name: str
    """As the driver says it."""
    driver: str
    torch: str
    measured_at: str
    """UTC."""
    total_bytes: int
    """Of memory, as torch reports it."""
    context_low_bytes: int
    """Process memory less torch's, once a small training step has loaded its kernels."""
    context_high_bytes: int
    """The same after every attention kernel, decompositions and fp32."""
    read_from: str
    """`process`: the driver's figure for this process; `card`: the difference on the whole card."""
    workspace_bytes: int
    """CuBLAS, per thread that multiplies matrices."""
    svd: tuple[SvdScratch, ...]

    @property
    def key(self) -> tuple[str, str, str]:
        """A newer calibration of the same key takes the older one's place."""
        return self.device_name, self.driver, self.torch

    @property
    def name(self) -> str:
        """How output names it."""
        return f"calibrated on this machine {self.measured_at[:10]} (torch {self.torch}, driver {self.driver})"


def read_calibrations(path: str | os.PathLike[str]) -> tuple[Calibration, ...]:
    """Every calibration of a file, newest first; none where there is no file.

    Raises:
        InputError: the file cannot be read, is broken, or was written by another version.
    """
    if not os.path.lexists(path):
        return ()
    found = map(_calibration, read_object(path, "a calibration file", SCHEMA).inners("cards"))
    return tuple(sorted(found, key=lambda each: each.measured_at, reverse=True))


def calibrations_bytes(calibrations: Iterable[Calibration]) -> bytes:
    """The file's content."""
    cards = [asdict(each) for each in calibrations]
    return (json.dumps({"schema": SCHEMA, "cards": cards}, indent=1, sort_keys=True) + "\n").encode("ascii")


def with_newest(calibrations: Iterable[Calibration], newest: Calibration) -> tuple[Calibration, ...]:
    """All of them, with `newest` in the place of an older one of its key."""
    return (newest, *(each for each in calibrations if each.key != newest.key))


def calibration_for(gpu: Gpu, calibrations: Iterable[Calibration]) -> Calibration | None:
    """The newest calibration of this card, or None."""
    for each in sorted(calibrations, key=lambda each: each.measured_at, reverse=True):
        if each.device_name in gpu.device_names and abs(each.total_bytes - gpu.usable_bytes) <= LIKE * gpu.usable_bytes:
            return each
    return None


def calibrated_gpu(gpu: Gpu, found: Calibration) -> Gpu:
    """The card with what was measured in the place of what is known of its kind."""
    low, high = (f"{nbytes / GIB:.2f}" for nbytes in (found.context_low_bytes, found.context_high_bytes))
    return replace(
        gpu,
        usable_bytes=found.total_bytes,
        usable_source=f"torch's total, {found.name}",
        usable_derived=False,
        context_low_bytes=found.context_low_bytes,
        context_high_bytes=found.context_high_bytes,
        context_source=f"{low}-{high} GiB as {found.name}",
        cublas_workspace_bytes=found.workspace_bytes,
        cublas_workspace_recent_bytes=found.workspace_bytes,
        svd_scratch=tuple((each.shorter, each.longer, each.scratch_bytes) for each in found.svd),
    )


def _calibration(fields: Fields) -> Calibration:
    found = Calibration(
        device_name=fields.text("device_name"),
        driver=fields.text("driver"),
        torch=fields.text("torch"),
        measured_at=fields.text("measured_at"),
        total_bytes=fields.count("total_bytes"),
        context_low_bytes=fields.count("context_low_bytes"),
        context_high_bytes=fields.count("context_high_bytes"),
        read_from=fields.text("read_from", ("process", "card")),
        workspace_bytes=fields.count("workspace_bytes"),
        svd=tuple(
            SvdScratch(
                shorter=each.count("shorter"), longer=each.count("longer"), scratch_bytes=each.count("scratch_bytes")
            )
            for each in fields.inners("svd")
        ),
    )
    if not found.context_low_bytes <= found.context_high_bytes < found.total_bytes:
        fields.refuse("its context is larger than its card, or smaller at the end than before")
    return found
