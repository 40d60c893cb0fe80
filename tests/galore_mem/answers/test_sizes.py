"""Sizes as people type them."""

import pytest

from galore_mem.answers.sizes import size_bytes
from profiles.errors import InputError


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("22GiB", 22 * 2**30),
        ("22 gib", 22 * 2**30),
        ("800MiB", 800 * 2**20),
        ("24GB", 24 * 10**9),
        ("0.5KiB", 512),
        ("0B", 0),
        (" 1TiB ", 2**40),
        (5, 5),
    ],
)
def test_sizes(text: str | int, nbytes: int) -> None:
    assert size_bytes(text, "--budget") == nbytes


@pytest.mark.parametrize("text", ["22", "", "GiB", "-1GiB", "1e3GiB", "22GiBs", "nanGiB", "1,5GiB", -1, True])
def test_what_is_no_size_is_refused_with_an_example(text: str | int) -> None:
    with pytest.raises(InputError, match=r"--budget .*22GiB"):
        size_bytes(text, "--budget")
