"""GPUs: what torch can use of each card, and what the CUDA context takes, with sources."""

import re
from dataclasses import dataclass
from typing import Any, Literal

from profiles import catalogue
from profiles.errors import InputError

Form = Literal["desktop", "laptop", "SXM", "PCIe", "OAM", "MIG"]
"""`MIG` is a slice of a card."""
CardClass = Literal["consumer", "workstation", "data-centre"]

MIB = 2**20
GIB = 2**30
_FILE = "gpus.jsonl"
_PREFERRED: tuple[Form, ...] = ("desktop", "SXM", "OAM")
_SLICE_WORDS = frozenset({"mig", "1g", "2g", "3g", "4g", "7g"})
"""Only a name with one of these means a slice."""
_VENDOR_WORDS = frozenset({"nvidia", "geforce", "amd", "instinct", "tesla", "radeon", "gpu", "generation"})

SMALL_WORKSPACE_BYTES = 8_519_680
LARGE_WORKSPACE_BYTES = 33_554_432
"""cuBLAS workspaces: large on Hopper, and on Blackwell in torch releases from about February 2026."""

_ARCHITECTURES = {
    (6, 0): "Pascal",
    (7, 0): "Volta",
    (7, 5): "Turing",
    (8, 0): "Ampere",
    (8, 9): "Ada",
    (9, 0): "Hopper",
    (10, 0): "Blackwell",
    (11, 0): "Blackwell",
    (12, 0): "Blackwell",
}

CONTEXTS: dict[CardClass, tuple[float, float, str]] = {
    "consumer": (0.2, 0.6, "0.2-0.6 GiB seen on consumer cards with lazy module loading"),
    "workstation": (
        0.2,
        1.5,
        "no reading of its own: from the least of consumer cards to the most of data-centre cards",
    ),
    "data-centre": (0.5, 1.5, "0.5-1.5 GiB seen on data-centre cards; it grows as kernels are loaded"),
}
"""Least and most GiB of a CUDA context, and their source, by class of card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU model. Sizes are bytes."""

    name: str
    aliases: tuple[str, ...] = ()
    device_names: tuple[str, ...] = ()
    """What the driver calls the card."""
    vendor: str = "nvidia"
    form: Form = "desktop"
    card_class: CardClass = "consumer"
    architecture: str
    compute_capability: str
    """`8.9` for Ada; AMD rows carry the gfx name."""
    multiprocessors: int | None = None
    """Streaming multiprocessors; a slice's are those that MIG gives it. None where unknown."""
    multiprocessors_source: str = ""
    total_bytes: int | None
    """What nvidia-smi prints as total."""
    total_source: str = ""
    usable_bytes: int
    """The smallest total memory torch was seen to report on Linux."""
    usable_source: str
    usable_derived: bool = False
    """True where no reading was found and the figure was derived from nvidia-smi's."""
    linux_readings_bytes: tuple[int, ...] = ()
    """Every total seen through torch on Linux."""
    context_low_bytes: int
    """CUDA context with lazy loading: the least seen or expected for the class of card."""
    context_high_bytes: int
    context_source: str
    cublas_workspace_bytes: int
    """One cuBLAS workspace (hipBLAS on AMD) in torch releases before about February 2026; a step holds two."""
    cublas_workspace_recent_bytes: int
    """The same in later torch releases, which raised it on Blackwell."""
    svd_scratch: tuple[tuple[int, int, int], ...] = ()
    """(shorter side, longer side, bytes) of decompositions whose scratch was measured on this very card."""
    memory_bandwidth_gb_s: float | None = None
    bandwidth_source: str = ""
    bf16_dense_tflops: float | None = None
    tflops_source: str = ""
    note: str = ""


def all_gpus() -> tuple[Gpu, ...]:
    """Every GPU of the catalogue, in its order."""
    return tuple(map(_gpu, catalogue.read_rows(_FILE)))


def find_gpu(name: str) -> Gpu:
    """The GPU that `name` means.

    An exact name or alias wins, then one whose words are the same (`4070ti`, or the driver's own name). Otherwise every
    word must belong to the card's name; of several such cards, desktop beats laptop and SXM beats PCIe.

    Raises:
        InputError: no card is meant, or still more than one; names the nearest ones.
    """
    row = catalogue.find_row(_FILE, name)
    if row is not None:
        return _gpu(row)
    rows = list(catalogue.read_rows(_FILE))
    wanted = _words(name)
    spelled = [row for row in rows if wanted in map(_words, _spellings(row))]
    names_a_model = any(character.isdigit() for word in wanted for character in word)
    whole = rows if wanted & _SLICE_WORDS else [row for row in rows if row["form"] != "MIG"]
    matching = spelled or [row for row in whole if names_a_model and wanted <= _all_words(row)]
    preferred = [row for row in matching if row["form"] in _PREFERRED] or matching
    if len(preferred) == 1:
        return _gpu(preferred[0])
    if preferred:
        choices = ", ".join(row["aliases"][0] for row in preferred)
        raise InputError(f"GPU {name!r} could be {len(preferred)} cards", "", f"choose one of: {choices}")
    count, _, each = name.lower().partition("x")
    if count.strip().isdigit() and each.strip():
        fix = f"for a copy of the model on each of them: --gpu {each.strip()} --data-parallel {count.strip()}"
        raise InputError(f"GPU {name!r} is several cards", "figures are those of each", fix)
    if catalogue.find_row("models.jsonl", name) is not None:
        raise InputError(
            f"{name!r} is a model, where a GPU is asked for", "", "put the model first, and --gpu 4090 behind"
        )
    raise catalogue.unknown("GPU", name, rows, "galore-mem gpus")


def find_device(device_name: str, total_bytes: int) -> Gpu | None:
    """The catalogue's row for a card as its driver names it, or None.

    Args:
        device_name: for instance `NVIDIA GeForce RTX 4060 Ti`.
        total_bytes: the card's total memory; tells cards apart that share a name.
    """
    rows = [row for row in catalogue.read_rows(_FILE) if device_name in row["device_names"] and row["total_mib"]]
    if not rows:
        return None
    row = min(rows, key=lambda row: abs(row["total_mib"] * MIB - total_bytes))
    return _gpu(row) if abs(row["total_mib"] * MIB - total_bytes) <= 0.1 * total_bytes else None


def derived_usable_bytes(total_bytes: int) -> int:
    """What torch can use of a card of which only nvidia-smi's total is known.

    Cards of 12 to 32 GB were seen to lose up to 3.16 % (RTX 3060) and up to 553 MiB (L4); the larger of the two
    is taken off. In MiB the loss hardly depends on the card's size, so that small cards lose a larger share (an 8 GB
    card 4.7 %) and large ones a smaller one.
    """
    return total_bytes - max(round(0.0316 * total_bytes), 553 * MIB)


def derived_gpu(
    *,
    name: str,
    card_class: CardClass,
    compute_capability: tuple[int, int],
    total_bytes: int,
    usable_bytes: int,
    usable_source: str,
    total_source: str = "NVML",
    aliases: tuple[str, ...] = (),
) -> Gpu:
    """A card that the catalogue lacks, from what its driver or its owner says."""
    low_gib, high_gib, context_source = CONTEXTS[card_class]
    major, minor = compute_capability
    return Gpu(
        name=name,
        aliases=aliases,
        device_names=(name,),
        form="laptop" if "Laptop" in name else "desktop" if card_class != "data-centre" else "PCIe",
        card_class=card_class,
        architecture=_ARCHITECTURES.get((major, minor), _ARCHITECTURES.get((major, 0), "unknown")),
        compute_capability=f"{major}.{minor}",
        total_bytes=total_bytes,
        total_source=total_source,
        usable_bytes=usable_bytes,
        usable_source=usable_source,
        usable_derived=True,
        context_low_bytes=round(low_gib * GIB),
        context_high_bytes=round(high_gib * GIB),
        context_source=context_source,
        cublas_workspace_bytes=LARGE_WORKSPACE_BYTES if major == 9 else SMALL_WORKSPACE_BYTES,
        cublas_workspace_recent_bytes=LARGE_WORKSPACE_BYTES if major >= 9 else SMALL_WORKSPACE_BYTES,
    )


def _words(name: str) -> frozenset[str]:
    spaced = re.sub(r"(?<=rtx)(?=\d)|(?<=\d{4})(?=ti|super)|(?<=ti)(?=\d)|(?<=super)(?=\d)", " ", name.lower())
    return frozenset(re.findall(r"[a-z0-9]+", spaced)) - _VENDOR_WORDS


def _spellings(row: dict[str, Any]) -> list[str]:
    return [*catalogue.names(row), *row["device_names"]]


def _all_words(row: dict[str, Any]) -> frozenset[str]:
    return frozenset().union(*map(_words, [*_spellings(row), row["form"]]))


def _gpu(row: dict[str, Any]) -> Gpu:
    low_gib, high_gib, source = CONTEXTS[row["card_class"]]
    if "context_gib" in row:
        (low_gib, high_gib), source = row["context_gib"], row["context_source"]
    return Gpu(
        name=row["name"],
        aliases=tuple(row["aliases"]),
        device_names=tuple(row["device_names"]),
        vendor=row["vendor"],
        form=row["form"],
        card_class=row["card_class"],
        architecture=row["architecture"],
        compute_capability=row["compute_capability"],
        multiprocessors=row["multiprocessors"],
        multiprocessors_source=row["multiprocessors_source"],
        total_bytes=row["total_mib"] and row["total_mib"] * MIB,
        total_source=row["total_source"],
        usable_bytes=row["usable_mib"] * MIB,
        usable_source=row["usable_source"],
        usable_derived=row["usable_derived"],
        linux_readings_bytes=tuple(reading * MIB for reading in row["linux_readings_mib"]),
        context_low_bytes=round(low_gib * GIB),
        context_high_bytes=round(high_gib * GIB),
        context_source=source,
        cublas_workspace_bytes=row["cublas_workspace_bytes"],
        cublas_workspace_recent_bytes=row["cublas_workspace_recent_bytes"],
        memory_bandwidth_gb_s=row["memory_bandwidth_gb_s"],
        bandwidth_source=row["bandwidth_source"],
        bf16_dense_tflops=row["bf16_dense_tflops"],
        tflops_source=row["tflops_source"],
        note=row["note"],
    )
