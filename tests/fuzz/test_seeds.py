"""Everything the fuzzer started from, and everything it ever found."""

from pathlib import Path

import pytest

from tests.fuzz import targets

SEEDS = sorted((Path(__file__).parent / "seeds").glob("*/*"))


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"{seed.parent.name}-{seed.name}")
def test_seed(seed: Path) -> None:
    getattr(targets, seed.parent.name)(seed.read_bytes())


def test_there_are_seeds_for_every_target() -> None:
    assert {seed.parent.name for seed in SEEDS} == {"recording", "settings", "content"}
