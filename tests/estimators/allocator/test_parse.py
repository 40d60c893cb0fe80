from random import Random

import pytest

from estimators.allocator import parse
from estimators.allocator.parse import parse_settings
from estimators.allocator.settings import DEFAULTS, MIB
from profiles.errors import InputError


def test_nothing_is_the_default() -> None:
    assert parse_settings("") == DEFAULTS


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("max_split_size_mb:128", "max_split_size_bytes", 128 * MIB),
        ("max_non_split_rounding_mb:64", "max_non_split_rounding_bytes", 64 * MIB),
        ("large_segment_size_mb:32", "large_segment_size_bytes", 32 * MIB),
        ("large_segment_size_mb:32", "max_non_split_rounding_bytes", 32 * MIB),
        ("garbage_collection_threshold:0.8", "garbage_collection_threshold", 0.8),
        ("expandable_segments:True", "expandable_segments", True),
        ("expandable_segments:True,expandable_segments:False", "expandable_segments", False),
        ("per_process_memory_fraction:0.5", "per_process_memory_fraction", 0.5),
        ("backend:cudaMallocAsync", "backend", "cudaMallocAsync"),
        ("roundup_power2_divisions:4", "roundup_power2_divisions", (4,) * 16),
        (
            "roundup_power2_divisions:[256:1,512:2,1024:4,>:8]",
            "roundup_power2_divisions",
            (1,) * 9 + (2, 4) + (8,) * 5,
        ),
        ("roundup_power2_divisions:[64:8]", "roundup_power2_divisions", (8,) * 7 + (0,) * 9),
        (" max_split_size_mb : 1 2 8 ", "max_split_size_bytes", 128 * MIB),
        ("max_split_size_mb,128", "max_split_size_bytes", 128 * MIB),
        ("max_split_size_mb:128abc", "max_split_size_bytes", 128 * MIB),
        ("max_split_size_mb:-1", "max_split_size_bytes", (2**64 - 1) // MIB * MIB),
        ("garbage_collection_threshold:0x1p-1", "garbage_collection_threshold", 0.5),
        ("pinned_num_register_threads:8,expandable_segments:True", "expandable_segments", True),
    ],
)
def test_accepted(text: str, field: str, value: object) -> None:
    assert getattr(parse_settings(text), field) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("expandable_segment:True", "did you mean expandable_segments"),
        ("expandable_segments:true", "True or False"),
        ("expandable_segments", "ends where"),
        ("max_split_size_mb:19", ">= 20"),
        ("max_split_size_mb:25,large_segment_size_mb:32", ">= 32"),
        ("large_segment_size_mb:10", "> 10"),
        ("max_split_size_mb:big", "not a number"),
        ("max_split_size_mb:" + "9" * 30, "too large"),
        ("garbage_collection_threshold:1", "between 0 and 1"),
        ("garbage_collection_threshold:nan", "between 0 and 1"),
        ("per_process_memory_fraction:1.5", "between 0 and 1"),
        ("roundup_power2_divisions:3", "power of 2"),
        ("roundup_power2_divisions:[3:1]", "power of 2"),
        ("roundup_power2_divisions:[1:2", "ends where"),
        ("backend:malloc", "unknown backend"),
        ("pinned_num_register_threads:256", "<= 128"),
        ("max_split_size_mb:100,,expandable_segments:True", "unknown key"),
        ("x" * 70_000, "too long"),
        (",", "ends where"),
    ],
)
def test_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        parse_settings(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


VALUES = (
    *("20", "100", "19", "-1", "0x20", "99999999999999999999999", "18446744073709551615", "18446744073709551616"),
    *("0.5", "1e-3", ".5", "nan", "inf", "0x1p-1", "abc", "True", "False", "[", "]", "4", "8", "3", ">", "1", ""),
    *("100abc", "+25", "1e400", "25", "32"),
)
INTERVALS = ("1", "2", "256", "3", ">", "65536", "1048576")


def _random_text(rng: Random) -> str:
    parts = []
    for _ in range(rng.randint(0, 3)):
        key = rng.choice(parse._COMMON_KEYS)
        if key == "roundup_power2_divisions" and rng.random() < 0.6:
            inside = [rng.choice(INTERVALS) + ":" + rng.choice("01238x") for _ in range(rng.randint(0, 3))]
            parts.append(key + ":[" + ",".join(inside) + rng.choice(["]", "]", "", ",]"]))
        else:
            parts.append(key + rng.choice([":", ":", ":", ",", "", " : "]) + rng.choice(VALUES))
    text = rng.choice([",", ",", "", ";", ", "]).join(parts)
    return text + (rng.choice([",", " ", "[", ":"]) if rng.random() < 0.1 else "")


def test_torch_itself_accepts_and_refuses_the_same_strings() -> None:
    """The library's own reader of the common keys is in every build, also without CUDA."""
    torch = pytest.importorskip("torch")
    accepts = torch._C._accelerator_setAllocatorSettings
    rng = Random(20)
    agreed = {True: 0, False: 0}
    try:
        for _ in range(20_000):
            text = _random_text(rng)
            accepts("large_segment_size_mb:20")  # the one key that outlives a call
            try:
                accepts(text)
                theirs = True
            except (ValueError, RuntimeError, IndexError):
                theirs = False
            try:
                parse._parse_common(parse._Tokens(text))
                ours = True
            except parse._RefusedError:
                ours = False
            assert ours == theirs, text
            agreed[ours] += 1
    finally:
        accepts("large_segment_size_mb:20")
        accepts("expandable_segments:False,pinned_use_background_threads:False")
    assert min(agreed.values()) > 2_000
