"""Of all configurations, which to take on a card: what fits, what that costs, and what just misses."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from estimators.analytic.parameters import parameter_count
from estimators.checks import check, closed_form_notes
from estimators.fidelity import fidelity
from estimators.workload import Method
from galore_mem.answers.names import NamedModel, resolve_cards, resolve_model
from galore_mem.answers.preference import preference as preference
from galore_mem.answers.search import CardResult as CardResult
from galore_mem.answers.search import Recommendation as Recommendation
from galore_mem.answers.sizes import size_bytes
from galore_mem.answers.wishes import WISHES, Wishes
from profiles.errors import InputError

if TYPE_CHECKING:
    from galore_mem.answers.written.run import WrittenRun


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """What would make a run fit."""

    asked: str
    """The model as it was typed."""
    model: NamedModel
    wishes: Wishes
    cards: tuple[CardResult, ...]
    """The best card for the job first."""
    notes: tuple[str, ...]
    written: "WrittenRun | None" = None
    """The other tool's file that the run was read from."""

    @property
    def parameters(self) -> int:
        """Parameters of the model, each shared one once."""
        return parameter_count(self.model.shape)

    @property
    def best(self) -> CardResult:
        """The first of the cards."""
        return self.cards[0]

    def to_dict(self) -> dict[str, Any]:
        """The FIT object of the JSON output."""
        best = self.best
        return {
            "schema": "galore-mem/fit/1",
            "model": self.model.shape.name,
            "parameters": self.parameters,
            "objective": self.wishes.objective,
            "recommended": best.recommended and best.recommended.to_dict(),
            "runner_up": best.runner_up and best.runner_up.to_dict(),
            "front": [option.to_dict() for option in best.front],
            "near_misses": [
                option.to_dict()
                | {"missing_bytes": option.missing_bytes, "surely_missing_bytes": option.surely_missing_bytes}
                for option in best.near_misses
            ],
            "cards": [
                {
                    "gpu": found.card.gpu.name,
                    "usable_bytes": found.card.gpu.usable_bytes - found.card.other_use_bytes,
                    "recommended": found.option and found.option.to_dict(),
                    "missing_bytes": None if found.option else found.least_missing_bytes,
                }
                for found in self.cards
            ],
            "notes": list(self.notes),
        } | ({"from": self.written.to_dict()} if self.written else {})


def fit(
    model: str | None = None,
    *,
    gpus: str | Sequence[str],
    other_use: str | int | None = None,
    wishes: Wishes | None = None,
    from_file: str | None = None,
    **words: Any,  # noqa: ANN401
) -> FitResult:
    """Search method, settings, batch and sequence for what fits, by the upper bound.

    Settings are rank, update, checkpointing, attention and optimizer kernels, loss, and the allocator's.

    Args:
        model: a catalogue name or alias, or the path of a config.json or of its folder.
        gpus: names or aliases of cards; `local` means those of this machine. Several are ranked.
        other_use: memory that other processes take from each card: bytes, or a size such as `800MiB`.
        wishes: constraints and objective; or give its fields as keywords.
        from_file: what another tool trains by; its model, sequences, precision and attention are kept, and how many
            sequences one optimizer step consumes. What is wished for here takes the place of what it says.
        words: fields of `Wishes`, for instance `min_rank=256`.

    Raises:
        InputError: an unknown name, no card, or wishes that contradict each other.
        NoDeviceError: `local`, and no usable card here.
    """
    if wishes is not None and words:
        raise InputError("wishes and keywords exclude each other", "", f"give {', '.join(words)} in wishes")
    several = {name: words[name] for name in ("methods", "target_modules") if name in words}
    several = {name: (value,) if isinstance(value, str) else tuple(value) for name, value in several.items()}
    for name in words:
        if name not in WISHES:
            from difflib import get_close_matches

            near = get_close_matches(name, WISHES) or WISHES
            raise InputError(f"no wish is called {name!r} here", "", f"try {', '.join(near)}")
    chosen = wishes or Wishes(**(words | several))
    written = None
    if from_file is not None:
        from galore_mem.answers.written.constraints import constrained

        written, model, chosen = constrained(from_file, model, chosen)
    if model is None:
        raise InputError("MODEL is missing", "", "type: galore-mem fit llama-7b --gpu 4090, or give --from FILE")
    named = resolve_model(model)
    chosen.agree_with(named.shape)
    if chosen.target_modules != Wishes().target_modules:  # which must match something
        fidelity(named.shape, Method(name="galore-adamw", rank=1, target_modules=chosen.target_modules))
    other_bytes = None if other_use is None else size_bytes(other_use, "--other-use")
    cards = resolve_cards((gpus,) if isinstance(gpus, str) else gpus, other_bytes)
    if not cards:
        raise InputError("fit needs a card to fit", "", "add --gpu 4090, or --gpu local")
    found = sorted((CardResult(named, chosen, card, cards) for card in cards), key=lambda result: result.order)
    notes = dict.fromkeys((*(written.notes if written else ()), *named.notes))
    for result in found:
        if result.option is not None:
            workload, is_replayed = result.option.workload, result.option.is_replayed
            settings = chosen.alloc_conf or ""  # what a search chose besides, it says among its reasons
            left_out = closed_form_notes(replace(workload, allocator_settings=settings), is_replayed=is_replayed)
            notes.update(dict.fromkeys((*check(workload, result.card.gpu), *left_out)))
    return FitResult(asked=model, model=named, wishes=chosen, cards=tuple(found), notes=tuple(notes), written=written)
