"""Refreshes find the leading singular directions, survive degenerate gradients, and repeat themselves."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from galore_mem.optim.geometry import Side, sides
from galore_mem.optim.projection import project
from galore_mem.optim.refresh import Bases, Request, cholesky, householder, new_bases

KINDS = ("subspace", "randomized", "svd")
PROJ_TYPES = ("std", "reverse_std", "left", "right", "full")


def gradient(rows: int, columns: int, *, decay: float = 1.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.arange(1, min(rows, columns) + 1).float() ** -decay
    left = torch.randn(rows, len(spectrum), generator=generator) * spectrum
    return left @ torch.randn(len(spectrum), columns, generator=generator)


def find(
    matrix: Tensor, kind: str, *, rank: int, proj_type: str = "std", previous: Bases | None = None, seed: int = 0
) -> Bases:
    request = Request(rank=rank, proj_type=proj_type, kind=kind, seed=seed, magnitude=float(matrix.abs().max()))
    return new_bases(matrix, request, previous)


def captured(matrix: Tensor, bases: Bases, rank: int) -> float:
    """Energy of the projected gradient over that of the best projection."""
    best = torch.linalg.svdvals(matrix.float())[:rank].square().sum()
    return float(project(matrix.float(), bases).square().sum() / best)


def gram_error(side: Side, basis: Tensor) -> float:
    columns = basis if side == "left" else basis.t()
    return float((columns.t() @ columns - torch.eye(columns.shape[1])).abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("proj_type", PROJ_TYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(64, 200), (200, 64), (96, 96)])
def test_bases_are_orthonormal_and_capture_the_gradient(
    shape: tuple[int, int], kind: str, proj_type: str, dtype: torch.dtype
) -> None:
    matrix, rank = gradient(*shape).to(dtype), 16
    cold = find(matrix, kind, rank=rank, proj_type=proj_type)
    moved = (gradient(*shape) + 0.3 * gradient(*shape, seed=1)).to(dtype)
    for target, bases in ((matrix, cold), (moved, find(moved, kind, rank=rank, proj_type=proj_type, previous=cold))):
        assert tuple(bases) == sides(shape, proj_type)
        for side, basis in bases.items():
            assert basis.shape == ((shape[0], rank) if side == "left" else (rank, shape[1]))
            assert gram_error(side, basis) < 1e-5
        assert captured(target, bases, rank) > 0.995


@pytest.mark.parametrize("kind", ["subspace", "randomized"])
def test_columns_come_in_the_order_of_their_singular_values(kind: str) -> None:
    matrix = gradient(64, 200)
    norms = project(matrix, find(matrix, kind, rank=8)).norm(dim=1).tolist()
    assert all(one > other for one, other in pairwise(norms))
    assert norms == pytest.approx(torch.linalg.svdvals(matrix)[:8].tolist(), rel=2e-2)


def test_warm_starts_converge_to_the_exact_directions() -> None:
    matrix = gradient(64, 200, decay=0.5)
    bases = find(matrix, "subspace", rank=8)
    first = captured(matrix, bases, 8)
    for _ in range(10):
        bases = find(matrix, "subspace", rank=8, previous=bases)
    assert captured(matrix, bases, 8) > max(first, 0.9999)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("proj_type", PROJ_TYPES)
def test_fewer_tokens_than_directions(kind: str, proj_type: str) -> None:
    """256 tokens give a gradient of rank 256 at most, and the paper's 7B rank is 1024: bases are orthonormal anyway."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(96, 5, generator=generator) @ torch.randn(5, 200, generator=generator)
    cold = find(matrix, kind, rank=32, proj_type=proj_type)
    warm = find(matrix, kind, rank=32, proj_type=proj_type, previous=cold)
    for bases in (cold, warm):
        assert captured(matrix, bases, 32) > 0.9999
        assert all(gram_error(side, basis) < 1e-4 for side, basis in bases.items())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e18])
def test_magnitudes_at_the_edge_of_fp32(kind: str, scale: float) -> None:
    matrix = gradient(64, 96)
    bases = find(matrix * scale, kind, rank=8)
    again = find(matrix * scale, kind, rank=8, previous=bases)
    assert captured(matrix, bases, 8) > 0.99
    assert captured(matrix, again, 8) > 0.99


def test_the_same_seed_gives_the_same_bases() -> None:
    matrix = gradient(64, 96)
    one, same, other = (find(matrix, "randomized", rank=8, seed=seed)["left"] for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_cholesky_gives_way_where_columns_are_dependent() -> None:
    columns = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    assert gram_error("left", cholesky(columns.clone())) < 1e-6
    assert torch.allclose(cholesky(columns.clone()).abs(), householder(columns).abs(), atol=1e-5)
    columns[:, 5] = columns[:, 0]
    assert gram_error("left", cholesky(columns.clone())) < 1e-5
    columns[:, 5] = 0.0
    assert gram_error("left", cholesky(columns.clone())) < 1e-5


def test_chunks_change_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = gradient(64, 500)
    whole = find(matrix, "randomized", rank=8, proj_type="full")
    monkeypatch.setattr("galore_mem.optim.refresh.CHUNK_BYTES", 10_000)
    chunked = find(matrix, "randomized", rank=8, proj_type="full")
    for side in whole:
        assert torch.allclose(whole[side], chunked[side], atol=1e-4)
