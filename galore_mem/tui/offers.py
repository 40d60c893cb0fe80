"""What each dialogue offers: models and cards of the catalogue, methods, ranks with the break-even."""

from functools import lru_cache

from estimators.workload import METHODS, Method
from galore_mem.answers.break_even import break_even_rank
from galore_mem.answers.catalogue import list_gpus, list_models
from galore_mem.render import words
from galore_mem.tui.board import Board
from galore_mem.tui.controls import Control
from galore_mem.tui.explain import EIGHT_BIT
from galore_mem.tui.picker import Offer, offers_of

BREAK_EVEN_METHODS = ("galore-adamw", "galore-adamw-8bit")


def offers_for(control: Control, board: Board) -> tuple[list[Offer], str]:
    """Offers, and a hint below them."""
    if control.name == "models":
        return list(_models()), "Or type the path of a config.json, of its folder, or a Hub id (org/name)."
    if control.name == "gpus":
        here = Offer(value="local", text="local", note="the GPUs of this machine, with what others use of them now")
        return [here, *_gpus()], control.help
    if control.name == "methods":
        return [
            Offer(value=name, text=f"{name:<18}", note=traits.summary) for name, traits in METHODS.items()
        ], control.help
    if control.name == "rank":
        return _ranks(control, board)
    return offers_of(control), control.help


def _ranks(control: Control, board: Board) -> tuple[list[Offer], str]:
    shape = board.rows[0].workload.model if board.rows else None
    if shape is None:
        return offers_of(control), control.help
    found = {name: break_even_rank(shape, Method(name=name), EIGHT_BIT) for name in BREAK_EVEN_METHODS}
    ranks = sorted({int(str(value)) for value in control.choices} | {rank for rank in found.values() if rank})
    offers = []
    for rank in ranks:
        even = [f"{name} breaks even with adamw-8bit" for name, best in found.items() if rank == best]
        quarter = ["a quarter of the width, GaLore's default here"] if rank == shape.hidden_size // 4 else []
        offers.append(Offer(value=rank, text=f"{rank:,}", note="; ".join([*quarter, *even])))
    return offers, f"{control.help} Above the break-even, GaLore's states and projectors take more than 8-bit Adam's."


@lru_cache(maxsize=1)
def _models() -> tuple[Offer, ...]:
    return tuple(
        Offer(
            value=model.name,
            text=f"{model.name:<26}",
            note=f"{words.parameters(model.parameters):>7}  {' '.join(model.aliases)}",
        )
        for model in list_models()
        if model.planned
    )


@lru_cache(maxsize=1)
def _gpus() -> tuple[Offer, ...]:
    return tuple(
        Offer(
            value=gpu.aliases[0] if gpu.aliases else gpu.name,
            text=f"{gpu.name:<24}",
            note=f"{words.gib(gpu.usable_bytes):>7} GiB  {' '.join(gpu.aliases)}",
        )
        for gpu in list_gpus()
    )
