"""Of all configurations, which to take on a card: what fits, what that costs, and what just misses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from estimators.analytic.parameters import parameter_count
from estimators.checks import check, closed_form_notes
from estimators.footprint import Footprint
from estimators.pareto import front
from estimators.verdict import Fit, judge, verdict_of
from estimators.workload import METHODS
from galore_mem.answers.candidates import Option, free_size, options
from galore_mem.answers.names import Card, NamedModel, resolve_cards, resolve_model
from galore_mem.answers.reasons import reasons
from galore_mem.answers.replayed import Replayed, Replays
from galore_mem.answers.sizes import size_bytes
from galore_mem.answers.wishes import ENOUGH, Wishes
from profiles.errors import InputError

if TYPE_CHECKING:
    from galore_mem.answers.written.run import WrittenRun

NEAR_MISSES = 8
MISSES = 2
"""That are replayed: the nearest."""
RUNNERS_UP = 3
"""That are replayed before none is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The configuration to take on one card."""

    option: Option
    footprint: Footprint
    fits: tuple[Fit, ...]
    """On its own card first, then on the others that were named."""
    why: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The `recommended` object of the JSON output."""
        return self.option.to_dict() | {
            "footprint": self.footprint.to_dict(),
            "fits": [fit.to_dict() for fit in self.fits],
            "why": list(self.why),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CardResult:
    """What a search found for one card."""

    card: Card
    looked_at: int
    """Configurations that were estimated."""
    recommended: Recommendation | None
    """None where nothing fits."""
    runner_up: Option | None
    """The next best of another method, rank, update or checkpointing."""
    front: tuple[Option, ...]
    """What fits and is beaten by nothing in memory, fidelity and work per token at once."""
    near_misses: tuple[Option, ...]
    """The leanest form of methods that do not fit, nearest first."""

    @property
    def order(self) -> tuple[object, ...]:
        """Where the card stands among others: by what can be done on it, then by its size, smallest first."""
        if self.recommended is None:
            least = min((option.missing_bytes for option in self.near_misses), default=0)
            return (1, least)
        option = self.recommended.option
        return (0, option.fidelity.key, round(option.relative_work, 1), self.card.gpu.usable_bytes)


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
            "near_misses": [option.to_dict() | {"missing_bytes": option.missing_bytes} for option in best.near_misses],
            "cards": [
                {
                    "gpu": found.card.gpu.name,
                    "usable_bytes": found.card.gpu.usable_bytes - found.card.other_use_bytes,
                    "recommended": found.recommended and found.recommended.option.to_dict(),
                    "missing_bytes": None
                    if found.recommended
                    else min((option.missing_bytes for option in found.near_misses), default=None),
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
    """Search method, rank, update, checkpointing, loss, batch and sequence for what fits, by the upper bound.

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
    chosen = wishes or Wishes(**words)
    written = None
    if from_file is not None:
        from galore_mem.answers.written.constraints import constrained

        written, model, chosen = constrained(from_file, model, chosen)
    if model is None:
        raise InputError("MODEL is missing", "", "type: galore-mem fit llama-7b --gpu 4090, or give --from FILE")
    named = resolve_model(model)
    other_bytes = None if other_use is None else size_bytes(other_use, "--other-use")
    cards = resolve_cards((gpus,) if isinstance(gpus, str) else gpus, other_bytes)
    if not cards:
        raise InputError("fit needs a card to fit", "", "add --gpu 4090, or --gpu local")
    found = sorted((_search(named, chosen, card, cards) for card in cards), key=lambda result: result.order)
    notes = dict.fromkeys((*(written.notes if written else ()), *named.notes))
    for result in found:
        if result.recommended is not None:
            workload = result.recommended.option.workload
            notes.update(dict.fromkeys((*check(workload, result.card.gpu), *closed_form_notes(workload))))
    return FitResult(asked=model, model=named, wishes=chosen, cards=tuple(found), notes=tuple(notes), written=written)


def _search(named: NamedModel, wishes: Wishes, card: Card, cards: Sequence[Card]) -> CardResult:
    seen = list(options(named.shape, wishes, card))
    if not seen:
        raise InputError(f"no configuration can run on {card.gpu.name} as asked", "", "loosen a constraint")
    possible = sorted((option for option in seen if option.least_missing_bytes <= 0), key=preference(wishes))
    fitting = [option for option in possible if option.missing_bytes <= 0]
    replays = Replays(card)
    best = replays.best(possible, free_size(wishes))
    misses = _near_misses([*map(replays.known, seen)], best.option if best else None, fitting)
    misses = tuple(
        replays.of(option).option if place < MISSES and option.least_missing_bytes <= 0 else option
        for place, option in enumerate(misses)
    )
    return CardResult(
        card=card,
        looked_at=len(seen),
        recommended=_recommendation(best, misses, fitting, cards, replays) if best else None,
        runner_up=_runner_up(best.option, fitting, replays) if best else None,
        front=front(
            [*([best.option] if best else []), *(o for o in fitting if not best or o.workload != best.option.workload)],
            lambda option: option.reach.upper_bytes,
            lambda option: option.fidelity.key,
            lambda option: option.relative_work,
        ),
        near_misses=misses,
    )


def _runner_up(best: Option, fitting: Sequence[Option], replays: Replays) -> Option | None:
    """The next best of another method, rank, update or checkpointing that holds when replayed."""
    others = (option for option in fitting if _sort(option) != _sort(best))
    found = (replays.of(option).option for option in islice(others, RUNNERS_UP))
    return next((option for option in found if option.missing_bytes <= 0), None)


def preference(wishes: Wishes) -> Callable[[Option], tuple[Any, ...]]:
    """The order in which options that fit are recommended.

    Every objective puts the kind of training first, and does not trade rank below the usual quarter of the width away
    while something of that rank fits; then comes what was asked for; then a tenth less work per token, an update of the
    whole model (which can be clipped), finer states, more sequences at once, fewer extras.
    """

    def key(option: Option) -> tuple[Any, ...]:
        workload = option.workload
        kind, share, states = option.fidelity.key
        asked = {
            "fidelity": 0,
            "batch": -workload.batch.micro_batch_size,
            "sequence": -workload.batch.sequence_length,
            "rank": -(workload.method.rank or 0),
        }[wishes.objective]
        if wishes.objective != "rank":
            share = max(share, -enough_share(option))
        work, by_layers = round(option.relative_work, 1), workload.method.update == "per-layer"
        batch, extras = (
            -workload.batch.micro_batch_size,
            (workload.checkpointing == "full") + (workload.loss == "chunked"),
        )
        last = option.reach.upper_bytes, workload.checkpointing, workload.loss, workload.method.rank or 0
        return kind, round(share, 3), asked, work, by_layers, states, batch, extras, *last, workload.method.name

    return key


def enough_share(option: Option) -> float:
    """The share from which more rank counts no longer."""
    from estimators.fidelity import fidelity

    method, model = option.workload.method, option.workload.model
    if METHODS[method.name].parameterisation != "galore":
        return 1.0
    return fidelity(model, replace(method, rank=max(1, model.hidden_size // ENOUGH))).share


def _sort(option: Option) -> tuple[object, ...]:
    method = option.workload.method
    return method.name, method.rank, method.update, option.workload.checkpointing


def _near_misses(seen: Sequence[Option], best: Option | None, fitting: Sequence[Option]) -> tuple[Option, ...]:
    """The leanest form of each method that fits in none; only those nearer to full-rank training than what does."""
    best_kind = best.fidelity.key[0] if best is not None else 99
    fit_anyhow = {option.workload.method.name for option in (*fitting, *([best] if best else []))}
    leanest: dict[str, Option] = {}
    for option in seen:
        name = option.workload.method.name
        if option.missing_bytes > 0 and name not in fit_anyhow and option.fidelity.key[0] <= best_kind:
            known = leanest.get(name)
            if known is None or option.reach.upper_bytes < known.reach.upper_bytes:
                leanest[name] = option
    return tuple(sorted(leanest.values(), key=lambda option: option.missing_bytes)[:NEAR_MISSES])


def _recommendation(
    best: Replayed, misses: Sequence[Option], fitting: Sequence[Option], cards: Sequence[Card], replays: Replays
) -> Recommendation:
    option = best.option
    others = [card for card in cards if card != option.card]
    own = judge(option.workload, option.card.gpu, other_use_bytes=option.card.other_use_bytes)
    batch = option.workload.batch
    own = replace(
        own,
        footprint=best.footprint,
        verdict=verdict_of(best.footprint, own.usable_bytes),
        max_micro_batch_size=max(own.max_micro_batch_size, batch.micro_batch_size),
        max_sequence_length=max(own.max_sequence_length, batch.sequence_length),
    )
    fits = (own, *(judge(option.workload, card.gpu, other_use_bytes=card.other_use_bytes) for card in others))
    alike = [other for other in fitting if _sort(other) == _sort(option) and other.form == option.form]
    refused = [replays.known(other) for other in alike]
    why = reasons(option, best.footprint, misses, fitting, [other for other in refused if other.missing_bytes > 0])
    return Recommendation(option=option, footprint=best.footprint, fits=fits, why=why)
