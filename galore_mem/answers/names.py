"""From what a person types to a model and to cards."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from profiles.errors import InputError
from profiles.gpus import Gpu, find_gpu
from profiles.shapes import ModelShape, UncoveredShape

if TYPE_CHECKING:
    from galore_mem.hub.headers import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedModel:
    """A model that a person named, ready to plan for."""

    shape: ModelShape
    source: str
    """Where its shape was read."""
    notes: tuple[str, ...] = ()
    checkpoint: "Weights | None" = None
    """What its checkpoint on the Hub stores, where it was looked up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedConfig:
    """A model that a person named, as its `config.json` states it."""

    name: str
    config: Mapping[str, Any]
    source: str
    """Where it was read."""
    is_file: bool
    """It was written by somebody else, so that what it says is not known to be right."""
    notes: tuple[str, ...] = ()
    checkpoint: "Weights | None" = None
    """What its checkpoint on the Hub stores, where it was looked up."""

    def with_shape(self, shape: ModelShape, notes: tuple[str, ...] = ()) -> NamedModel:
        """The model, once its shape is known."""
        from profiles.configs import config_notes

        own = (*self.notes, *(config_notes(self.config, shape) if self.is_file else ()))
        if self.checkpoint is not None and not isinstance(shape, UncoveredShape):
            from galore_mem.answers.hub_models import differences

            own += differences(shape, self.checkpoint)
        return NamedModel(shape=shape, source=self.source, notes=(*own, *notes), checkpoint=self.checkpoint)


def resolve_model(name: str) -> NamedModel:
    """The model that `name` means: a path if it looks like one, then the catalogue, then a folder, then the Hub.

    Raises:
        UncoveredError: a family or variant that no closed form covers.
        InputError: no such model or file, or a config that makes no sense.
        UsageError: the Hub shows no such model.
        NetworkError: the Hub was needed and did not answer.
    """
    from profiles.configs import shape_from_config

    found = find_config(name)
    return found.with_shape(shape_from_config(found.config, found.name))


def find_config(name: str) -> NamedConfig:
    """The config that `name` means.

    Raises:
        InputError: no such model or file.
        UsageError: the Hub shows no such model.
        NetworkError: the Hub was needed and did not answer.
    """
    if name.startswith((".", "~", os.sep)) or name.endswith(".json"):
        return _from_path(os.path.expanduser(name))
    from profiles.models import find_model

    try:
        model = find_model(name)
    except InputError:
        if os.path.exists(name):
            return _from_path(name)
        if "/" in name:
            return _from_hub(name)
        raise
    return NamedConfig(name=model.name, config=model.config, source=model.source, is_file=False)


def _from_hub(name: str) -> NamedConfig:
    """What the Hub says; where it does not answer, what the name says."""
    from galore_mem.answers.hub_models import from_hub
    from galore_mem.errors import NetworkError

    try:
        return from_hub(name)
    except NetworkError as error:
        from galore_mem.answers.relatives import relative_of

        found = relative_of(name, error.what)
        if found is None:
            raise
        return found


def _from_path(path: str) -> NamedConfig:
    from profiles.configs import read_config

    return NamedConfig(name=path, config=read_config(path), source=path, is_file=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A card that a person named, and what others take from it."""

    gpu: Gpu
    other_use_bytes: int = 0
    note: str = ""
    """What a person should know of its figures."""


def resolve_cards(names: Iterable[str], other_use_bytes: int | None = None) -> tuple[Card, ...]:
    """The cards that `names` mean, each once; `local` means those of this machine, with what others use of them now.

    Args:
        names: names or aliases, or TOML files that describe cards.
        other_use_bytes: what others take, instead of what is found on a local card.

    Raises:
        InputError: no such card, or others leave nothing of any.
        UsageError: a TOML file that describes none.
        NoDeviceError: `local`, and no usable one here.
    """
    found = [card for name in names for card in _cards(name)]
    if other_use_bytes is not None:
        largest = max((card.gpu for card in found), key=lambda gpu: gpu.usable_bytes, default=None)
        if largest is not None and other_use_bytes >= largest.usable_bytes:
            sizes = f"{other_use_bytes / 2**30:,.2f} of {largest.usable_bytes / 2**30:,.2f} GiB"
            raise InputError(f"--other-use leaves nothing of {largest.name}", f"others would take {sizes}", "give less")
        found = [replace(card, other_use_bytes=other_use_bytes) for card in found]
    return tuple(dict.fromkeys(found))


def card_for(other_use: object, cards: Sequence[Card]) -> None:
    """Refuse what others use of no card.

    Raises:
        InputError: says what to add.
    """
    if other_use is not None and not cards:
        raise InputError("--other-use has no card to be taken from", "", "add --gpu NAME, or leave it out")


def _known(name: str) -> Gpu:
    """A card of the catalogue, or one that the person has described."""
    try:
        return find_gpu(name)
    except InputError as unknown:
        from galore_mem.answers.own_cards import own_card

        own = own_card(name)
        if own is None:
            raise unknown from None
        return own


def _cards(name: str) -> list[Card]:
    from galore_mem.answers.calibrated import calibrated

    if name.lower().endswith(".toml"):
        from galore_mem.answers.own_cards import read_cards

        return [calibrated(Card(gpu=gpu)) for gpu in read_cards(name)]
    if name.lower() != "local":
        return [calibrated(Card(gpu=_known(name)))]
    from galore_mem.answers.local_gpu import local_gpus

    return [calibrated(Card(gpu=local.gpu, other_use_bytes=local.other_use_bytes)) for local in local_gpus()]
