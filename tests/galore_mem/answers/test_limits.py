"""What a card leaves for the allocator, and which card leaves more."""

from galore_mem.answers.limits import limit_of, next_card
from galore_mem.answers.names import Card
from profiles.gpus import find_gpu

GIB = 2**30


def test_the_next_card_is_the_smallest_with_room() -> None:
    card = Card(gpu=find_gpu("4090"))
    assert next_card(card, 5 * GIB) == "5000-ada"
    assert next_card(card, 8 * GIB) == "a100-pcie-40gb"
    assert next_card(card, 4096 * GIB) is None


def test_what_others_use_is_missing_too() -> None:
    alone, shared = Card(gpu=find_gpu("4090")), Card(gpu=find_gpu("4090"), other_use_bytes=4 * GIB)
    assert limit_of(alone).capacity_bytes - limit_of(shared).capacity_bytes == 4 * GIB
    assert next_card(shared, 2 * GIB) == "a30"
