"""Kinds of training are looked at one after another, and only as far as somebody asks."""

import pytest

from galore_mem.answers.candidates import Candidates, options
from galore_mem.answers.fit import fit
from galore_mem.answers.looks import Looks
from galore_mem.answers.names import Card
from galore_mem.answers.preference import preference
from galore_mem.answers.wishes import Wishes
from profiles.gpus import find_gpu
from profiles.models import find_model

CARD, MODEL = Card(gpu=find_gpu("3060")), find_model("llama-350m").shape


def test_looks_hold_every_option_once_in_the_order_of_preference() -> None:
    wishes = Wishes()
    looks = list(Looks(MODEL, wishes, CARD))
    assert [look.kind for look in looks] == sorted({look.kind for look in looks})
    seen, expected = [option for look in looks for option in look.seen], list(options(MODEL, wishes, CARD))
    assert sorted(map(repr, (option.workload for option in seen))) == sorted(map(repr, (o.workload for o in expected)))
    possible = [option for option in seen if option.least_missing_bytes <= 0]
    assert [option for look in looks for option in look.possible] == sorted(possible, key=preference(wishes))


def test_only_the_best_card_is_looked_at_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card on which full AdamW fits needs nothing else to be ranked."""
    asked: list[tuple[str, tuple[str, ...]]] = []
    plain = Candidates.of

    def counting(self: Candidates, methods: tuple[str, ...]) -> object:
        asked.append((self.card.gpu.name, methods))
        return plain(self, methods)

    monkeypatch.setattr(Candidates, "of", counting)
    found = fit("llama-350m", gpus=["4090", "3060"])
    assert [result.card.gpu.name for result in found.cards] == ["RTX 3060 12GB", "RTX 4090"]
    assert {methods for _, methods in asked} == {("adamw", "adamw-8bit")}
    alone = fit("llama-350m", gpus="3060").best
    assert found.best.front
    assert alone.front
    assert found.best.looked_at == alone.looked_at > 100
    assert {name for name, methods in asked if methods != ("adamw", "adamw-8bit")} == {"RTX 3060 12GB"}
    assert [option.to_dict() for option in found.best.front] == [option.to_dict() for option in alone.front]


@pytest.mark.parametrize("groups", [1, 4, 8, 1000])
def test_the_front_begins_alike_whatever_else_is_looked_at(groups: int) -> None:
    whole, part = fit("llama-350m", gpus="3060").best, fit("llama-350m", gpus="3060").best
    found, most = part.nearest_of_front(groups), whole.front
    kind = max(option.fidelity.key[0] for option in found)
    assert [option.to_dict() for option in found] == [
        option.to_dict() for option in most if option.fidelity.key[0] <= kind
    ]
    assert len({option.form.group for option in found}) >= min(groups, len({option.form.group for option in most}))
    assert part.looked_at <= whole.looked_at
    assert (part.looked_at < whole.looked_at) == (groups < 1000)
