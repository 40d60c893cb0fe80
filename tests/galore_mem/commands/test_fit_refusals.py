"""What `fit` refuses, and what it says then."""

import pytest

from galore_mem.answers.fit import fit
from profiles.errors import InputError


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"rank": 5000}, "--rank 5000 is above every rank of llama-7b"),
        ({"target_modules": ("nosuch",)}, "matches no linear layer of llama-7b"),
        ({"gradient_as_bucket_view": True}, "one GPU has no buckets"),
        ({"alloc_conf": "backend:cudaMallocAsync"}, "its pool lives in the driver"),
        ({"attention": "flash", "gpus": "v100-16gb"}, "flash attention needs compute capability 8.0 or higher"),
    ],
    ids=str,
)
def test_a_wish_that_nothing_can_meet_is_refused_by_its_name(words: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        fit("llama-7b", **({"gpus": "4090"} | words))  # type: ignore[arg-type]
