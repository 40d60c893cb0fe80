"""What was fetched before: galore-mem's own configurations and counts, and the cache that transformers fills.

Own: `<cache>/<org>--<name>/<commit>/{config,weights}.json` and `refs/<revision>`, which holds the commit that a branch
or tag last meant. transformers': `models--<org>--<name>/{refs,snapshots/<commit>}` (huggingface_hub's layout).
"""

import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from galore_mem.hub.environment import Environment
from galore_mem.hub.headers import LENGTH_BYTES, HeaderError, Weights, header_length, weights_of

_MOST_BYTES = 10 << 20


class Cache:
    """Reads both caches and writes its own; a cache that cannot be written is no error.

    Args:
        environment: where they lie.
        repository: `org/name`.
    """

    def __init__(self, environment: Environment, repository: str) -> None:
        flat = repository.replace("/", "--")
        self._own = os.path.join(environment.own_cache, flat)
        self._hub = os.path.join(environment.hub_cache, f"models--{flat}")

    def commit_of(self, revision: str) -> str:
        """The commit that a branch or tag meant when it was last asked for; empty where it never was."""
        for path in (self._reference(revision), os.path.join(self._hub, "refs", *revision.split("/"))):
            text = _read(path).decode("ascii", "replace").strip()
            if len(text) == 40 and text.isalnum():
                return text
        return ""

    def remember(self, revision: str, commit: str) -> None:
        """Note what a branch or tag means now."""
        self._write(self._reference(revision), commit.encode())

    def config(self, commit: str) -> bytes:
        """The config.json of a commit; empty where neither cache has it."""
        return _read(os.path.join(self._own, commit, "config.json")) or _read(self._snapshot(commit, "config.json"))

    def keep_config(self, commit: str, data: bytes) -> None:
        """Keep a config.json."""
        self._write(os.path.join(self._own, commit, "config.json"), data)

    def weights(self, commit: str) -> Weights | None:
        """What a commit's checkpoint stores, if it was counted before or lies in transformers' cache."""
        with suppress(ValueError, TypeError, KeyError):
            return Weights(**json.loads(_read(os.path.join(self._own, commit, "weights.json"))))
        with suppress(OSError, HeaderError):
            return self._counted(commit)
        return None

    def keep_weights(self, commit: str, weights: Weights) -> None:
        """Keep a count."""
        self._write(os.path.join(self._own, commit, "weights.json"), json.dumps(asdict(weights)).encode())

    def _counted(self, commit: str) -> Weights | None:
        """From the headers of files that transformers has downloaded, if none of them is missing."""
        index = _read(self._snapshot(commit, "model.safetensors.index.json"))
        total: Weights | None = None
        for name in shards(index) if index else ["model.safetensors"]:
            with open(self._snapshot(commit, name), "rb") as file:
                found = weights_of(file.read(header_length(file.read(LENGTH_BYTES))))
            total = found if total is None else total.plus(found)
        return total

    def _reference(self, revision: str) -> str:
        return os.path.join(self._own, "refs", quote(revision, safe=""))

    def _snapshot(self, commit: str, name: str) -> str:
        return os.path.join(self._hub, "snapshots", commit, name)

    def _write(self, path: str, data: bytes) -> None:
        with suppress(OSError):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.replace(temporary, path)


def shards(index: bytes) -> list[str]:
    """The files that a `model.safetensors.index.json` names, each once.

    Raises:
        HeaderError: it is no such index.
    """
    try:
        names: Any = json.loads(index)["weight_map"].values()
        found = list(dict.fromkeys(names))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise HeaderError("its index is no list of files") from None
    if not found or not all(isinstance(name, str) and "/" not in name and "\\" not in name for name in found):
        raise HeaderError("its index names no files")
    return found


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MOST_BYTES)
    except (OSError, ValueError):
        return b""
