"""A stand-in for the Hub's endpoints, on this machine."""

import json
import re
import struct
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_standin"


def safetensors(tensors: dict[str, tuple[str, list[int]]], *, padding: int = 0) -> bytes:
    """The beginning of a safetensors file; its weights follow as zeros where the stand-in serves it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "filler": "x" * padding}}
    header |= {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]} for name, (dtype, shape) in tensors.items()
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


@dataclass
class Repository:
    """What the stand-in serves under one name."""

    files: dict[str, bytes]
    commit: str = COMMIT
    revisions: tuple[str, ...] = ("main", "v1.0", COMMIT)
    needs_token: bool = False
    error_code: str = ""
    """Answered with 403 and this X-Error-Code."""
    moved_to: str = ""


@dataclass
class StandIn:
    """The server, what it serves, and what it was asked."""

    endpoint: str = ""
    store: str = ""
    """Where large files are redirected to: the same server under another host name."""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Host, path, and the token that came along."""
    sent_bytes: dict[str, int] = field(default_factory=dict)
    failures: int = 0
    """So many requests are answered with 503 first."""
    understands_ranges: bool = True

    def paths(self) -> list[str]:
        """What was asked for, without the store."""
        return [path for host, path, _ in self.requests if host in self.endpoint]


def answer(request: BaseHTTPRequestHandler, stand_in: StandIn) -> None:
    token = request.headers.get("Authorization", "")
    stand_in.requests.append((request.headers.get("Host", ""), request.path, token))
    if stand_in.failures:
        stand_in.failures -= 1
        return _refuse(request, 503)
    if request.path.startswith("/store/"):
        return _send_large(request, stand_in, request.path.removeprefix("/store/"))
    found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", request.path)
    assert found, request.path
    repository = stand_in.repositories.get(found[1])
    if repository is None or (repository.needs_token and token != f"Bearer {TOKEN}"):
        return _refuse(request, 401, "RepoNotFound")
    if repository.error_code:
        return _refuse(request, 403, repository.error_code)
    if repository.moved_to:
        location = request.path.replace(found[1], repository.moved_to, 1)
        return _send(request, 307, b"", {"Location": location})
    if found[2].replace("%2F", "/") not in repository.revisions:
        return _refuse(request, 404, "RevisionNotFound")
    if found[3] not in repository.files:
        return _refuse(request, 404, "EntryNotFound")
    headers = {"X-Repo-Commit": repository.commit}
    if found[3].endswith(".safetensors"):
        location = f"{stand_in.store}/store/{found[1]}/{found[3]}"
        return _send(request, 302, b"", {**headers, "Location": location})
    return _send(request, 200, repository.files[found[3]], headers)


def _send_large(request: BaseHTTPRequestHandler, stand_in: StandIn, path: str) -> None:
    organisation, name, file = path.split("/")
    data = stand_in.repositories[f"{organisation}/{name}"].files[file] + bytes(300_000)
    start, stop = 0, len(data)
    bounds = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
    assert bounds, "weights were asked for whole"
    if stand_in.understands_ranges:
        start, stop = int(bounds[1]), int(bounds[2]) + 1
    part = data[start:stop]
    stand_in.sent_bytes[path] = stand_in.sent_bytes.get(path, 0) + len(part)
    _send(request, 206 if stand_in.understands_ranges else 200, part, {})


def _refuse(request: BaseHTTPRequestHandler, status: int, reason: str = "") -> None:
    _send(request, status, b"no", {"X-Error-Code": reason} if reason else {})


def _send(request: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str]) -> None:
    request.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(data)), "Connection": "close"}.items():
        request.send_header(name, value)
    request.end_headers()
    try:
        request.wfile.write(data)
    except (BrokenPipeError, ConnectionResetError):
        return
