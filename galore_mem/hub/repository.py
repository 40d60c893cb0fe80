"""A model of the Hub: its configuration, and what its checkpoint stores, without fetching a weight."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial, reduce

from galore_mem.errors import NetworkError
from galore_mem.hub.cache import Cache, shards
from galore_mem.hub.client import Client, MissingFileError
from galore_mem.hub.environment import Environment, environment
from galore_mem.hub.headers import FIRST_BYTES, LENGTH_BYTES, HeaderError, Weights, header_length, weights_of

_NAME = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95})(?:@([\w./+-]{1,200}))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
MOST_CONFIG_BYTES = 10 << 20
MOST_INDEX_BYTES = 64 << 20
MOST_SHARDS = 1024
AT_ONCE = 6
"""Headers that are asked for at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubModel:
    """What the Hub says of a model."""

    repository: str
    revision: str
    """As asked for."""
    commit: str
    """Which it means; empty where the server does not say."""
    endpoint: str
    config: bytes
    """The content of its config.json."""
    weights: Weights | None
    """None where it has no safetensors."""
    notes: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """Where its shape was read."""
        return f"{self.endpoint}/{self.repository}@{self.commit[:12] or self.revision}"


def repository_of(name: str) -> tuple[str, str] | None:
    """Repository and revision of `org/name` or `org/name@revision`; None for anything else."""
    found = _NAME.fullmatch(name)
    if found is None or ".." in name or "--" in name:
        return None
    return found[1], found[2] or "main"


def read_model(repository: str, revision: str) -> HubModel:
    """Configuration and counts of a model; a commit that was seen before is read from the cache alone.

    Raises:
        UsageError: no such repository or revision, no access, or no transformers model.
        NetworkError: the Hub was needed and did not answer, or may not be asked.
    """
    around = environment()
    cache = Cache(around, repository)
    if _COMMIT.fullmatch(revision) and cache.config(revision) and cache.weights(revision) is not None:
        return _cached(around, cache, repository, revision, revision)
    if around.is_offline:
        return _offline(around, cache, repository, revision)
    try:
        return _fetched(around, cache, repository, revision)
    except NetworkError as error:
        commit = cache.commit_of(revision)
        if not commit or not cache.config(commit):
            raise
        note = f"{error.what}: {repository} is planned as it was at commit {commit[:12]}, when it was last seen"
        return _cached(around, cache, repository, revision, commit, note)


def _fetched(around: Environment, cache: Cache, repository: str, revision: str) -> HubModel:
    client = Client(around)
    reply = client.file(repository, revision, "config.json", MOST_CONFIG_BYTES)
    commit = reply.commit or (revision if _COMMIT.fullmatch(revision) else "")
    notes: tuple[str, ...] = ()
    weights = cache.weights(commit) if commit else None
    if weights is None:
        try:
            weights = _counted(client, repository, commit or revision)
        except (MissingFileError, HeaderError) as error:
            notes = (f"parameters are counted from the configuration alone: {error}",)
    if commit:
        cache.remember(revision, commit)
        cache.keep_config(commit, reply.data)
        if weights is not None:
            cache.keep_weights(commit, weights)
    return HubModel(
        repository=repository,
        revision=revision,
        commit=commit,
        endpoint=around.endpoint,
        config=reply.data,
        weights=weights,
        notes=notes,
    )


def _offline(around: Environment, cache: Cache, repository: str, revision: str) -> HubModel:
    commit = revision if _COMMIT.fullmatch(revision) else cache.commit_of(revision)
    if not commit or not cache.config(commit):
        raise NetworkError(
            f"{repository} at {revision} was never fetched",
            "HF_HUB_OFFLINE forbids to ask the Hub",
            "unset it once, or give the path of a config.json",
        )
    return _cached(around, cache, repository, revision, commit)


def _cached(around: Environment, cache: Cache, repository: str, revision: str, commit: str, note: str = "") -> HubModel:
    return HubModel(
        repository=repository,
        revision=revision,
        commit=commit,
        endpoint=around.endpoint,
        config=cache.config(commit),
        weights=cache.weights(commit),
        notes=(note,) if note else (),
    )


def _counted(client: Client, repository: str, revision: str) -> Weights:
    """Elements of every tensor, from the headers of all files.

    Raises:
        MissingFileError: no safetensors.
        HeaderError: a file that is none.
    """
    try:
        names = shards(client.file(repository, revision, "model.safetensors.index.json", MOST_INDEX_BYTES).data)
    except MissingFileError:
        names = ["model.safetensors"]
    if len(names) > MOST_SHARDS:
        raise HeaderError(f"its index names {len(names)} files")
    read = partial(_header, client, repository, revision)
    if len(names) == 1:
        return read(names[0])
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return reduce(Weights.plus, pool.map(read, names))


def _header(client: Client, repository: str, revision: str, name: str) -> Weights:
    start = client.stretch(repository, revision, name, 0, FIRST_BYTES).data
    length = header_length(start)
    header = start[LENGTH_BYTES : LENGTH_BYTES + length]
    if len(header) < length:
        header += client.stretch(repository, revision, name, len(start), length - len(header)).data
    if len(header) < length:
        raise HeaderError(f"{name} ends before its header")
    return weights_of(header)
