"""Why a run takes what it takes: the ledger of a layer, the peak tensor by tensor, and what each setting is worth."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from estimators.analytic.attention import attention_kernel
from estimators.analytic.composition import composition
from estimators.analytic.estimate import estimate
from estimators.analytic.ledger import layer_counts, layer_ledger
from estimators.analytic.parameters import parameter_count
from estimators.analytic.tensors import Tensors
from estimators.checks import check, closed_form_notes
from estimators.footprint import Footprint
from estimators.workload import Workload
from galore_mem.answers.asked import words_asked
from galore_mem.answers.changes import offers
from galore_mem.answers.differences import Difference, difference
from galore_mem.answers.galore_questions import Remark, remarks
from galore_mem.answers.names import Card, NamedModel, card_for, resolve_cards, resolve_model
from galore_mem.answers.settings import Settings, workloads
from galore_mem.answers.sizes import size_bytes

if TYPE_CHECKING:
    from galore_mem.answers.written.run import WrittenRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One setting changed, and what that is worth."""

    options: str
    """What to type."""
    upper_bytes: int
    saved_bytes: int
    """How much lower the upper bound is; negative where it is higher."""

    def to_dict(self) -> dict[str, Any]:
        """An entry of `changes` in the JSON output."""
        return {"options": self.options, "upper_bytes": self.upper_bytes, "saved_bytes": self.saved_bytes}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKind:
    """Layers that keep the same tensors."""

    kind: str
    """`full_attention` or `sliding_attention`; empty where all layers are alike."""
    count: int
    nbytes: int
    """What one of them keeps for backward."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One configuration taken apart."""

    asked: str
    """The model as it was typed."""
    model: NamedModel
    workload: Workload
    card: Card | None
    attention_kernel: str
    footprint: Footprint
    ledger: tuple[Tensors, ...]
    """What one decoder layer keeps for backward, of the commonest kind; its largest tensors first."""
    layers: tuple[LayerKind, ...]
    """Kinds of layers, the commonest first."""
    at_peak: tuple[Tensors, ...]
    """Everything alive at the peak; its live bytes add up to the peak's categories."""
    changes: tuple[Change, ...]
    """What single changes would save, the largest first."""
    remarks: tuple[Remark, ...]
    """Why GaLore takes what it takes; empty for other methods."""
    difference: Difference | None
    """From this configuration to another one."""
    notes: tuple[str, ...]
    written: "WrittenRun | None" = None
    """The other tool's file that the run was read from."""

    @property
    def layer_bytes(self) -> int:
        """What one layer keeps, exactly."""
        return sum(entry.exact_bytes for entry in self.ledger)

    def to_dict(self) -> dict[str, Any]:
        """The EXPLAIN object of the JSON output."""
        return {
            "schema": "galore-mem/explain/1",
            "workload": self.workload.to_dict() | {"parameters": parameter_count(self.model.shape)},
            "attention_kernel": self.attention_kernel,
            "footprint": self.footprint.to_dict(),
            "layer": {
                "bytes": self.layer_bytes,
                "layers": self.layers[0].count,
                "tensors": [_entry(entry) for entry in self.ledger],
            }
            | ({"kinds": [asdict(kind) for kind in self.layers]} if len(self.layers) > 1 else {}),
            "at_peak": [_entry(entry) | {"live_bytes": entry.live_bytes} for entry in self.at_peak],
            "changes": [change.to_dict() for change in self.changes],
            "remarks": [remark.to_dict() for remark in self.remarks],
            "difference": self.difference and self.difference.to_dict(),
            "notes": list(self.notes),
        } | ({"from": self.written.to_dict()} if self.written else {})


def _entry(entry: Tensors) -> dict[str, Any]:
    return {
        "name": entry.name,
        "category": entry.category,
        "bytes": entry.nbytes,
        "count": entry.count,
        "formula": entry.formula,
        "needed_by": list(entry.needed_by),
    }


def explain(
    model: str | None = None,
    *,
    gpu: str | None = None,
    method: str | None = None,
    settings: Settings | None = None,
    other_use: str | int | None = None,
    other: tuple[str, Settings] | None = None,
    from_file: str | None = None,
    **words: Any,  # noqa: ANN401
) -> Explanation:
    """Take one configuration apart.

    Args:
        model: a catalogue name or alias, or the path of a config.json or of its folder.
        gpu: the card, which decides the attention kernel and the context; an Ampere or Ada consumer card unless given.
        method: one training method; AdamW, or the file's, unless given.
        settings: everything else about the run; or give its fields as keywords.
        other_use: memory that other processes take from the card.
        other: method and settings of a second configuration, to be compared with this one.
        from_file: what another tool trains by: transformers' TrainingArguments, axolotl's or LLaMA-Factory's YAML. What
            is stated here takes its place.
        words: fields of `Settings`, for instance `rank=128`.

    Raises:
        InputError: an unknown name, a value that means nothing, or options that contradict each other.
        NoDeviceError: `local`, and no usable card here.
    """
    asked = words_asked(model, method, settings, words, from_file, "explain")
    named = resolve_model(asked.model)
    card = _card(gpu, None if other_use is None else size_bytes(other_use, "--other-use"))
    (workload,) = workloads(named.shape, (asked.method,), asked.settings)
    card_for(other_use, (card,) if card else ())
    own = card.gpu if card else None
    notes = dict.fromkeys((*asked.notes, *named.notes, *check(workload, own), *closed_form_notes(workload)))
    footprint = estimate(workload, own)
    kernel = attention_kernel(workload, own)
    second = None
    if other is not None:
        (second,) = workloads(named.shape, (other[0],), other[1])
        notes.update(dict.fromkeys(check(second, own)))
    rows = composition(workload, footprint.peak, own)
    return Explanation(
        asked=asked.model,
        model=named,
        workload=workload,
        card=card,
        attention_kernel=kernel,
        footprint=footprint,
        ledger=tuple(sorted(layer_ledger(workload, kernel), key=lambda entry: -entry.exact_bytes)),
        layers=tuple(
            LayerKind(
                kind=kind,
                count=count,
                nbytes=sum(entry.exact_bytes for entry in layer_ledger(workload, kernel, kind)),
            )
            for kind, count in layer_counts(workload).items()
        ),
        at_peak=tuple(sorted(rows, key=lambda entry: -entry.live_bytes)),
        changes=_changes(workload, footprint, card),
        remarks=remarks(workload, footprint, own),
        difference=difference(workload, second, own) if second is not None else None,
        notes=tuple(notes),
        written=asked.written,
    )


def _card(name: str | None, other_use_bytes: int | None) -> Card | None:
    if name is None:
        return None
    return resolve_cards((name,), other_use_bytes)[0]


def _changes(workload: Workload, footprint: Footprint, card: Card | None) -> tuple[Change, ...]:
    found = [
        Change(
            options=offer.options, upper_bytes=offer.upper_bytes, saved_bytes=footprint.upper_bytes - offer.upper_bytes
        )
        for offer in offers(workload, card.gpu if card else None, fits=False)
    ]
    return tuple(sorted(found, key=lambda change: -change.saved_bytes))
