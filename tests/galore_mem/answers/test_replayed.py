"""How the largest size that holds is looked for, with replays that spare some share of what the bound allows for."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.allocator.settings import EXPANDABLE
from estimators.workload import Method, Workload
from galore_mem.answers.candidates import Form, Option
from galore_mem.answers.names import Card
from galore_mem.answers.replayed import TRIES, Replays
from galore_mem.answers.round_lengths import round_length, step_of
from profiles.gpus import find_gpu
from profiles.models import find_model

CARD = Card(gpu=find_gpu("3060"))
WORKLOAD = Workload(model=find_model("llama-350m").shape, method=Method(name="adamw-8bit"), checkpointing="full")
FORM = Form(WORKLOAD, CARD)


class Sparing(Replays):
    """Instead of replays: what the closed form allows for, but for a share of it that depends on the size."""

    def __init__(self, shares: list[float], expandable: list[float] | None = None) -> None:
        super().__init__(CARD, may_expand=expandable is not None)
        self.shares = {"": shares, EXPANDABLE.text: expandable or []}
        self.tried: list[int] = []
        self.expanded: list[int] = []
        """Tried under expandable segments."""

    def of(self, option: Option) -> Option:
        number, under = option.batch.micro_batch_size, option.workload.allocator_settings
        (self.expanded if under else self.tried).append(number)
        shares = self.shares[under]
        spared = int(shares[number % len(shares)] * option.reach.loss_bytes)
        reach = option.reach._replace(upper_bytes=option.reach.upper_bytes - spared)
        return replace(option, reach=reach, is_replayed=True)

    def holds(self, number: int, under: str = "") -> bool:
        option = FORM.under(under).option(replace(WORKLOAD.batch, micro_batch_size=number))
        return Sparing(*self.shares.values()).of(option).missing_bytes <= 0


@settings(deadline=None, max_examples=40)
@given(st.floats(-0.5, 1.0))
def test_an_even_share_is_found_out_at_once(share: float) -> None:
    replays = Sparing([share])
    found = replays.largest(FORM.option(WORKLOAD.batch), "micro_batch_size")
    assert found is not None
    number = found.batch.micro_batch_size
    assert replays.holds(number)
    assert not replays.holds(number + 1)
    assert len(replays.tried) <= 4


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-0.2, 1.0), min_size=2, max_size=7))
def test_what_is_found_holds_and_nothing_larger_that_was_tried_does(shares: list[float]) -> None:
    replays = Sparing(shares)
    found = replays.largest(FORM.option(WORKLOAD.batch), "micro_batch_size")
    assert len(replays.tried) == len(set(replays.tried))
    holding = [number for number in replays.tried if replays.holds(number)]
    assert (found.batch.micro_batch_size if found else None) == max(holding, default=None)
    assert len(replays.tried) <= TRIES or not holding[:-1]


@settings(deadline=None, max_examples=40)
@given(st.floats(0.3, 1.0))
def test_lengths_are_tried_in_round_numbers(share: float) -> None:
    tried: list[int] = []

    class OfLengths(Sparing):
        def of(self, option: Option) -> Option:
            tried.append(option.batch.sequence_length)
            return super().of(option)

    model = replace(WORKLOAD.model, max_position_embeddings=100_000)
    form = Form(replace(WORKLOAD, model=model), CARD)
    found = OfLengths([share]).largest(form.option(WORKLOAD.batch), "sequence_length")
    assert found is not None
    length = found.batch.sequence_length
    assert all(round_length(number) == number for number in tried)
    assert (
        OfLengths([share]).of(form.option(replace(found.batch, sequence_length=length + step_of(length)))).missing_bytes
        > 0
    )
    assert len(set(tried)) <= TRIES


SHARES = st.lists(st.floats(-0.2, 1.0), min_size=1, max_size=5)


@settings(deadline=None, max_examples=80)
@given(SHARES, SHARES)
def test_expandable_segments_are_taken_only_where_they_make_more_fit(shares: list[float], others: list[float]) -> None:
    replays = Sparing(shares, others)
    found = replays.largest(FORM.option(WORKLOAD.batch), "micro_batch_size")
    plain = [number for number in replays.tried if replays.holds(number)]
    expanded = [number for number in replays.expanded if replays.holds(number, EXPANDABLE.text)]
    if found is None:
        assert not plain + expanded
        return
    number, under = found.batch.micro_batch_size, found.workload.allocator_settings
    assert replays.holds(number, under)
    assert number == max(plain + expanded)
    assert (not under) == (number in plain)


def test_what_the_default_settings_hold_counts_before_the_best_is_chosen() -> None:
    """Large tables leave expandable segments holes that nothing else fits into; other forms then seemed better."""
    chunked = Form(replace(WORKLOAD, loss="chunked"), CARD)

    class OfForms(Sparing):
        def of(self, option: Option) -> Option:
            self.shares = {"": [0.9], EXPANDABLE.text: [-3.0 if option.workload.loss == "chunked" else 0.9]}
            return super().of(option)

    replays, options = OfForms([], []), [form.option(WORKLOAD.batch) for form in (FORM, chunked)]
    largest = [replays.largest(option, "micro_batch_size") for option in options]
    assert all(found is not None and not found.workload.allocator_settings for found in largest)
    best = replays.best([options], "micro_batch_size", lambda option: (0, 0, -option.batch.micro_batch_size))
    assert best is not None
    assert best.workload.loss == "chunked"


def test_a_size_that_only_expandable_segments_hold() -> None:
    option = FORM.option(replace(WORKLOAD.batch, micro_batch_size=2))
    settings = []
    for shares in ([0.5, 0.5], [-30.0, 0.5], [-30.0, -30.0]):
        replays = Sparing(shares[:1], shares[1:])
        found = replays.largest(option, None)
        settings.append(found.workload.allocator_settings if found else None)
        assert replays.either(option).missing_bytes <= replays.of(option).missing_bytes
    assert settings == ["", EXPANDABLE.text, None]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_size_that_is_given_is_replayed_alone(share: float) -> None:
    replays, option = Sparing([share]), FORM.option(replace(WORKLOAD.batch, micro_batch_size=2))
    found = replays.largest(option, None)
    assert replays.tried == [2]
    assert (found is not None) == replays.holds(2)
