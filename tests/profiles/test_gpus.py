import pytest

from profiles import catalogue
from profiles.errors import InputError
from profiles.gpus import GIB, MIB, Gpu, all_gpus, derived_usable_bytes, find_device, find_gpu

GPUS = all_gpus()


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_every_name_and_alias_finds_its_row(gpu: Gpu) -> None:
    for name in (gpu.name, *gpu.aliases):
        assert find_gpu(name) == gpu
        assert find_gpu(name.upper()) == gpu


def test_no_two_rows_share_a_name() -> None:
    rows = [{catalogue.key(name) for name in (gpu.name, *gpu.aliases)} for gpu in GPUS]
    assert len(set().union(*rows)) == sum(map(len, rows))


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("4090", "RTX 4090"),
        ("rtx4090", "RTX 4090"),
        ("RTX_4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("a100-80gb", "A100 80GB SXM"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB SXM"),
        ("h100", "H100 80GB SXM"),
        ("h200", "H200"),
        ("4060ti-16gb", "RTX 4060 Ti 16GB"),
        ("mi300x", "MI300X"),
        ("4090 laptop", "RTX 4090 Laptop"),
        ("RTX 4090 Laptop GPU", "RTX 4090 Laptop"),
        ("A100 40GB", "A100 40GB SXM"),
        ("a100 80gb pcie", "A100 80GB PCIe"),
        ("NVIDIA H100 PCIe", "H100 80GB PCIe"),
        ("Tesla T4", "T4"),
        ("4070ti", "RTX 4070 Ti"),
        ("4070 Ti Super", "RTX 4070 Ti SUPER"),
        ("NVIDIA GeForce RTX 4080", "RTX 4080"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000 Blackwell"),
        ("NVIDIA H100 80GB HBM3", "H100 80GB SXM"),
        ("3070", "RTX 3070"),
        ("3080 12gb", "RTX 3080 12GB"),
        ("5070", "RTX 5070"),
        ("a30", "A30"),
        ("H100 NVL", "H100 NVL"),
        ("gh200", "GH200 96GB"),
        ("b300", "B300"),
        ("3060 laptop", "RTX 3060 Laptop"),
        ("NVIDIA GeForce RTX 4060 Laptop GPU", "RTX 4060 Laptop"),
        ("a100-40gb 3g.20gb", "A100 40GB MIG 3g.20gb"),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "A100 40GB MIG 3g.20gb"),
        ("h100 3g.40gb", "H100 80GB MIG 3g.40gb"),
    ],
)
def test_spellings(typed: str, name: str) -> None:
    assert find_gpu(typed).name == name


def test_desktop_beats_laptop_and_sxm_beats_pcie() -> None:
    assert find_gpu("NVIDIA 4090").form == "desktop"
    assert find_gpu("nvidia a100 80gb").form == "SXM"
    assert find_gpu("nvidia h100").form == "SXM"


@pytest.mark.parametrize("typed", ["a100", "v100", "4060ti", "RTX 4060 Ti", "a100 pcie", "RTX 6000"])
def test_a_name_that_means_several_cards_lists_them(typed: str) -> None:
    with pytest.raises(InputError, match="could be 2 cards") as caught:
        find_gpu(typed)
    for choice in caught.value.fix.removeprefix("choose one of: ").split(", "):
        find_gpu(choice)


@pytest.mark.parametrize(
    "typed", ["", "  ", '"', "name", "NVIDIA", "rtx", "laptop", "sxm", "gtx 9999 ultra", "x" * 500]
)
def test_unknown_names_are_refused_in_one_line(typed: str) -> None:
    with pytest.raises(InputError) as caught:
        find_gpu(typed)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(InputError, match=r"did you mean .*\bh100\b"):
        find_gpu("h101")


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_usable_is_the_smallest_linux_reading_or_marked_derived(gpu: Gpu) -> None:
    assert gpu.usable_source
    if gpu.linux_readings_bytes:
        assert gpu.usable_bytes == min(gpu.linux_readings_bytes)
        assert not gpu.usable_derived
        assert gpu.total_bytes is None or 0.93 * gpu.total_bytes < gpu.usable_bytes < gpu.total_bytes
    else:
        assert gpu.usable_derived
        assert gpu.total_bytes is not None


def test_derived_usable_is_below_what_any_similar_card_loses() -> None:
    """A derived figure loses at least as much, in MiB and in share, as every card of 12 to 32 GB was seen to lose."""
    seen = [gpu for gpu in GPUS if gpu.total_bytes and not gpu.usable_derived and 12 <= gpu.total_bytes / GIB < 40]
    derived = [gpu for gpu in GPUS if gpu.usable_derived]
    assert derived
    for gpu in derived:
        assert gpu.total_bytes
        assert gpu.usable_bytes == derived_usable_bytes(gpu.total_bytes) // MIB * MIB
        for other in seen:
            assert other.total_bytes
            assert gpu.total_bytes - gpu.usable_bytes >= other.total_bytes - other.usable_bytes
            assert gpu.usable_bytes / gpu.total_bytes <= other.usable_bytes / other.total_bytes


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_context_and_workspaces_are_ordered(gpu: Gpu) -> None:
    assert 0 < gpu.context_low_bytes < gpu.context_high_bytes <= 1.5 * GIB
    assert gpu.context_source
    assert gpu.cublas_workspace_bytes <= gpu.cublas_workspace_recent_bytes


def test_workspaces_follow_the_architecture() -> None:
    assert find_gpu("4090").cublas_workspace_recent_bytes == 8_519_680
    assert find_gpu("h100").cublas_workspace_bytes == 33_554_432
    assert find_gpu("5090").cublas_workspace_bytes == 8_519_680
    assert find_gpu("5090").cublas_workspace_recent_bytes == 33_554_432


def test_device_names_tell_memory_sizes_apart() -> None:
    small = find_device("NVIDIA GeForce RTX 4060 Ti", 8188 * MIB)
    large = find_device("NVIDIA GeForce RTX 4060 Ti", 16380 * MIB)
    assert small is not None
    assert large is not None
    assert (small.name, large.name) == ("RTX 4060 Ti 8GB", "RTX 4060 Ti 16GB")
    assert find_device("NVIDIA GeForce RTX 4090", 48 * GIB) is None
    assert find_device("NVIDIA GeForce GTX 1080", 8 * GIB) is None
