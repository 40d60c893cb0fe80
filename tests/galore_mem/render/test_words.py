"""Numbers as people read them."""

import pytest

from galore_mem.render.words import GIB, gib, in_step_order, parameters, signed_gib


@pytest.mark.parametrize(
    ("count", "text"),
    [(999, "999"), (999_885_952, "1.00 B"), (9_996_000, "10.0 M"), (99_960_000, "100 M"), (6_738_415_616, "6.74 B")],
)
def test_parameters_have_three_digits(count: int, text: str) -> None:
    assert parameters(count) == text


@pytest.mark.parametrize(
    ("gibibytes", "text"),
    [(0.0, "+0.00"), (-7577.5, "-7,578"), (999.99, "+999.99"), (999.999, "+1,000"), (12.5, "+12.50"), (0.001, "+0.00")],
)
def test_thousands_leave_their_column_whole(gibibytes: float, text: str) -> None:
    assert signed_gib(round(gibibytes * GIB)) == text
    assert gib(round(gibibytes * GIB)) == text.removeprefix("+")


def test_moments_are_told_as_a_step_goes_through_them() -> None:
    met = ["steady step", "first step", "first refresh", "first own", "first forward_end", "first step"]
    assert in_step_order(met) == ["first forward_end", "first refresh", "first step", "first own", "steady step"]
    assert in_step_order(["layer_update", "refresh", "loss"]) == ["loss", "refresh", "layer_update"]


def test_a_lack_that_rounds_to_nothing_has_no_sign() -> None:
    assert signed_gib(-GIB // 1000) == "0.00"
