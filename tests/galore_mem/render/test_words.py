"""Numbers as people read them."""

import pytest

from galore_mem.render.words import parameters


@pytest.mark.parametrize(
    ("count", "text"),
    [(999, "999"), (999_885_952, "1.00 B"), (9_996_000, "10.0 M"), (99_960_000, "100 M"), (6_738_415_616, "6.74 B")],
)
def test_parameters_have_three_digits(count: int, text: str) -> None:
    assert parameters(count) == text
