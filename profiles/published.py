"""Figures that others published: shown beside ours, never used to set one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from profiles import catalogue

Unit = Literal["MiB", "M", "G", "GB", "%"]
Figure = Literal[
    "parameters",
    "retained",
    "weights",
    "optimizer_states",
    "optimizer_states_and_gradients",
    "weights_and_optimizer_states",
    "activations",
    "total",
    "process",
    "optimizer_states_reduction",
    "total_reduction",
]

_FILE = "published.jsonl"
_BYTES: dict[str, tuple[int, int]] = {
    "MiB": (2**20, 2**20),
    "M": (10**6, 2**20),
    "G": (10**9, 2**30),
    "GB": (10**9, 2**30),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One figure as its source prints it."""

    name: str
    model: str | None
    """A model of the catalogue; None where the source names none."""
    figure: Figure
    """What was counted: `total` as torch's allocator saw it, `process` as nvidia-smi did."""
    value: float
    unit: Unit
    """As printed. `G` and `GB` may mean 10^9 or 2^30 bytes, `M` 10^6 or 2^20: no source says."""
    kind: Literal["measured", "estimated"]
    conditions: Mapping[str, Any]
    """What the source states of the run, under the names of `Workload` and `Method`; what it leaves out is missing."""
    source: str
    note: str

    @property
    def bytes_range(self) -> tuple[float, float] | None:
        """Least and most bytes that the printed value may mean, rounding aside; None for a percentage."""
        if self.unit not in _BYTES:
            return None
        low, high = _BYTES[self.unit]
        return self.value * low, self.value * high


def published_figures(model: str | None = None) -> tuple[Published, ...]:
    """Every published figure, or those for one model of the catalogue."""
    rows = catalogue.read_rows(_FILE)
    return tuple(Published(**row) for row in rows if model is None or row["model"] == model)
