"""Cards that a person describes in a small TOML: a file that is named, or `gpus.toml` in the user's configuration.

[[gpu]]
name = "RTX 4090 48GB"
total = "49140MiB"            # what nvidia-smi prints as total
usable = "48500MiB"           # what torch reports; derived from the total unless given
compute_capability = "8.9"
class = "consumer"            # or workstation, data-centre; decides the range of the CUDA context
aliases = ["4090-48gb"]
"""

import os
import re
from typing import Any, get_args

from galore_mem.answers.sizes import size_bytes
from galore_mem.errors import UsageError
from profiles import catalogue
from profiles.errors import InputError
from profiles.gpus import MIB, CardClass, Gpu, derived_gpu, derived_usable_bytes

KEYS = ("name", "total", "usable", "compute_capability", "class", "aliases")
_HOW = "docs/catalogue.md shows a card of your own"
MOST_BYTES = 1 << 20


def own_file() -> str:
    """Where a person's own cards lie on this system."""
    from platformdirs import user_config_dir

    return os.path.join(user_config_dir("galore-mem", appauthor=False), "gpus.toml")


def own_card(name: str) -> Gpu | None:
    """The card of that name or alias in the user's configuration; None where there is none.

    Raises:
        UsageError: the file is there and cannot be used.
    """
    path = own_file()
    if not os.path.isfile(path):
        return None
    wanted = catalogue.key(name)
    return next((gpu for gpu in read_cards(path) if wanted in map(catalogue.key, (gpu.name, *gpu.aliases))), None)


def read_cards(path: str) -> tuple[Gpu, ...]:
    """Every card that a TOML file describes.

    Raises:
        UsageError: no such file, no TOML, or a card that is not described completely; one line that says what.
    """
    import tomllib

    try:
        with open(os.path.expanduser(path), "rb") as file:
            content = tomllib.loads(file.read(MOST_BYTES).decode("utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise UsageError(f"cannot use {path[:200]}", reason, _HOW) from None
    entries = content.get("gpu")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError(f"{path} describes no card", "it has no [[gpu]] table", _HOW)
    return tuple(_card(entry, f"{path}, card {number}") for number, entry in enumerate(entries, 1))


def _card(entry: dict[str, Any], place: str) -> Gpu:
    odd = [key for key in entry if key not in KEYS]
    if odd:
        raise UsageError(f"{place}: {odd[0]} is no key of a card", f"known are {', '.join(KEYS)}", _HOW)
    name = _text(entry, "name", place)
    card_class = _text(entry, "class", place, "consumer")
    if card_class not in get_args(CardClass):
        raise UsageError(f"{place}: class is {card_class!r}", f"choose {', '.join(get_args(CardClass))}", "")
    total = _size(entry, "total", place)
    usable = _size(entry, "usable", place) if "usable" in entry else derived_usable_bytes(total) // MIB * MIB
    if not 0 < usable <= total:
        raise UsageError(f"{place}: usable is above total", "torch never sees more than nvidia-smi", "exchange them")
    return derived_gpu(
        name=name,
        aliases=_aliases(entry, place),
        card_class=card_class,  # type: ignore[arg-type]
        compute_capability=_capability(entry, place),
        total_bytes=total,
        total_source=place,
        usable_bytes=usable,
        usable_source=place if "usable" in entry else "derived from the total, as for every card without a reading",
    )


def _text(entry: dict[str, Any], key: str, place: str, default: str = "") -> str:
    value = entry.get(key, default)
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > 80:
        what = f"is {value!r}"[:60] if key in entry else "is missing"
        raise UsageError(f"{place}: {key} {what}", "it should be a short text", _HOW)
    return value.strip()


def _size(entry: dict[str, Any], key: str, place: str) -> int:
    try:
        return size_bytes(_text(entry, key, place), f"{place}: {key}")
    except InputError:
        raise UsageError(f"{place}: {key} is {entry[key]!r}", "it should be a size like 24564MiB", _HOW) from None


def _capability(entry: dict[str, Any], place: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,2})\.(\d)", str(entry.get("compute_capability", "")))
    if found is None:
        value = entry.get("compute_capability", "missing")
        raise UsageError(f"{place}: compute_capability is {value}", "it should be one like '8.9'", _HOW)
    return int(found[1]), int(found[2])


def _aliases(entry: dict[str, Any], place: str) -> tuple[str, ...]:
    value = entry.get("aliases", [])
    if not isinstance(value, list) or not all(isinstance(alias, str) and alias.strip() for alias in value):
        raise UsageError(f"{place}: aliases is {value!r}"[:200], "it should be a list of names", _HOW)
    return tuple(value)
