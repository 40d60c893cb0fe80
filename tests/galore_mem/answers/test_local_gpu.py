"""`--gpu local` against a made-up NVML."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from galore_mem.answers.local_gpu import local_gpus
from galore_mem.errors import ExitCode, NoDeviceError
from profiles.gpus import MIB, derived_usable_bytes, find_gpu


class NVMLError(Exception):
    pass


ERRORS = {
    name: type(name, (NVMLError,), {})
    for name in (
        "NVMLError_LibraryNotFound",
        "NVMLError_DriverNotLoaded",
        "NVMLError_FunctionNotFound",
        "NVMLError_NotSupported",
        "NVMLError_InvalidArgument",
        "NVMLError_Unknown",
    )
}


@dataclass(kw_only=True)
class Card:
    name: str | bytes = "NVIDIA GeForce RTX 4090"
    uuid: str = "GPU-aaaa"
    total_mib: int = 24564
    reserved_mib: int = 347
    used_mib: int = 100
    capability: tuple[int, int] = (8, 9)
    mig: bool | None = None


@dataclass(kw_only=True)
class Machine:
    """An NVML with some cards; `failing` maps a function's name to the error it raises."""

    cards: list[Card] = field(default_factory=lambda: [Card()])
    old: bool = False
    failing: dict[str, str] = field(default_factory=dict)
    shut_down: int = 0

    def module(self) -> ModuleType:
        module = ModuleType("pynvml")
        vars(module).update(ERRORS, NVMLError=NVMLError, nvmlMemory_v2=2)
        functions: dict[str, Callable[..., Any]] = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": self._shutdown,
            "nvmlDeviceGetCount": lambda: len(self.cards),
            "nvmlDeviceGetHandleByIndex": lambda index: self.cards[index],
            "nvmlDeviceGetName": lambda card: card.name,
            "nvmlDeviceGetUUID": lambda card: card.uuid,
            "nvmlDeviceGetMemoryInfo": self._memory,
            "nvmlDeviceGetMigMode": self._mig,
            "nvmlDeviceGetCudaComputeCapability": lambda card: card.capability,
        }
        for name, function in functions.items():
            setattr(module, name, self._maybe_failing(name, function))
        return module

    def _maybe_failing(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
            if name in self.failing:
                raise ERRORS[self.failing[name]]("it broke")
            return function(*arguments, **options)

        return call

    def _shutdown(self) -> None:
        self.shut_down += 1

    def _memory(self, card: Card, version: int | None = None) -> Any:  # noqa: ANN401
        if version is not None and self.old:
            raise ERRORS["NVMLError_FunctionNotFound"]("Function Not Found")
        reading = type("Memory", (), {})()
        reading.total = card.total_mib * MIB
        reading.reserved = card.reserved_mib * MIB
        reading.used = (card.used_mib + (0 if version else card.reserved_mib)) * MIB
        if version is None:
            del reading.reserved
        return reading

    def _mig(self, card: Card) -> tuple[int, int]:
        if card.mig is None:
            raise ERRORS["NVMLError_NotSupported"]("Not Supported")
        return int(card.mig), int(card.mig)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Machine], Machine]:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)

    def install(machine: Machine) -> Machine:
        monkeypatch.setitem(sys.modules, "pynvml", machine.module())
        return machine

    return install


Install = Callable[[Machine], Machine]


def test_a_known_card_is_the_catalogue_s(machine: Install) -> None:
    used = machine(Machine())
    (card,) = local_gpus()
    assert card.gpu == find_gpu("4090")
    assert (card.index, card.uuid, card.device_name) == (0, "GPU-aaaa", "NVIDIA GeForce RTX 4090")
    assert card.total_bytes == 24564 * MIB
    assert card.other_use_bytes == 100 * MIB
    assert used.shut_down == 1


def test_a_larger_reserve_than_ever_seen_lowers_what_is_usable(machine: Install) -> None:
    machine(Machine(cards=[Card(reserved_mib=600)]))
    (card,) = local_gpus()
    assert card.gpu.usable_bytes == (24564 - 600) * MIB
    assert "this card" in card.gpu.usable_source


def test_an_unknown_card_is_derived_from_the_reading(machine: Install) -> None:
    machine(
        Machine(cards=[Card(name=b"NVIDIA RTX 9999 Laptop GPU", total_mib=20000, reserved_mib=300, capability=(12, 0))])
    )
    (card,) = local_gpus()
    assert card.gpu.name == "NVIDIA RTX 9999 Laptop GPU"
    assert card.gpu.usable_bytes == 19700 * MIB
    assert card.gpu.usable_derived
    assert (card.gpu.architecture, card.gpu.compute_capability, card.gpu.form) == ("Blackwell", "12.0", "laptop")
    assert card.gpu.cublas_workspace_recent_bytes == 33_554_432


def test_an_old_driver_counts_its_reserve_as_used(machine: Install) -> None:
    machine(Machine(cards=[Card(name="GeForce GTX 1080 Ti", total_mib=11178, used_mib=0, capability=(6, 1))], old=True))
    (card,) = local_gpus()
    assert card.gpu.usable_bytes == derived_usable_bytes(11178 * MIB)
    assert card.other_use_bytes == 0
    assert card.gpu.architecture == "Pascal"


def test_cards_that_share_a_name_are_told_apart(machine: Install) -> None:
    small = Card(name="NVIDIA GeForce RTX 4060 Ti", total_mib=8188, reserved_mib=300)
    large = Card(name="NVIDIA GeForce RTX 4060 Ti", total_mib=16380, reserved_mib=300, uuid="GPU-bbbb")
    machine(Machine(cards=[small, large]))
    assert [card.gpu.name for card in local_gpus()] == ["RTX 4060 Ti 8GB", "RTX 4060 Ti 16GB"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Machine(failing={"nvmlInit": "NVMLError_LibraryNotFound"}), "has no NVIDIA driver"),
        (Machine(failing={"nvmlInit": "NVMLError_DriverNotLoaded"}), "installed but not loaded"),
        (Machine(failing={"nvmlInit": "NVMLError_Unknown"}), "does not answer. NVML says: it broke"),
        (Machine(failing={"nvmlDeviceGetMemoryInfo": "NVMLError_Unknown"}), "does not answer. NVML says: it broke"),
        (Machine(failing={"nvmlDeviceGetCount": "NVMLError_Unknown"}), "does not answer"),
        (Machine(cards=[]), "the NVIDIA driver sees no GPU"),
        (
            Machine(cards=[Card(name="NVIDIA A100-SXM4-40GB", mig=True)]),
            r"GPU 0 \(NVIDIA A100-SXM4-40GB\) is split by MIG",
        ),
    ],
)
def test_what_gives_no_card_is_one_line_and_exit_3(machine: Install, broken: Machine, message: str) -> None:
    machine(broken)
    with pytest.raises(NoDeviceError, match=message) as caught:
        local_gpus()
    assert caught.value.exit_code == ExitCode.NO_DEVICE
    assert "\n" not in str(caught.value)


def test_without_the_binding_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NoDeviceError, match="pip install nvidia-ml-py"):
        local_gpus()


def test_split_cards_are_left_out_where_others_remain(machine: Install) -> None:
    machine(Machine(cards=[Card(mig=True), Card(mig=False, uuid="GPU-bbbb")]))
    assert [card.index for card in local_gpus()] == [1]


TWINS = [Card(uuid="GPU-aa11"), Card(uuid="GPU-aa22"), Card(uuid="GPU-bb33")]


@pytest.mark.parametrize(
    ("setting", "indices"),
    [
        ("0", [0]),
        ("2,0", [2, 0]),
        ("1,-1,2", [1]),
        ("0,7,1", [0]),
        ("GPU-bb", [2]),
        ("GPU-aa22,0", [1, 0]),
    ],
)
def test_hidden_cards_stay_hidden(
    machine: Install, monkeypatch: pytest.MonkeyPatch, setting: str, indices: list[int]
) -> None:
    machine(Machine(cards=TWINS))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    assert [card.index for card in local_gpus()] == indices


@pytest.mark.parametrize("setting", ["", "-1", "GPU-aa", "none", "9", "1,1", "MIG-1234"])
def test_no_visible_card_is_no_device(machine: Install, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    machine(Machine(cards=TWINS))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    with pytest.raises(NoDeviceError, match=f"CUDA_VISIBLE_DEVICES={setting} "):
        local_gpus()


def test_numbers_of_unlike_cards_need_an_order(machine: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(Machine(cards=[Card(), Card(name="NVIDIA GeForce RTX 3090", total_mib=24576)]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(NoDeviceError, match="CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        local_gpus()
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert [card.gpu.name for card in local_gpus()] == ["RTX 3090"]
