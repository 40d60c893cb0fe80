"""GET requests to the Hub: small files whole, the beginning of large ones, and errors that say what to do.

huggingface_hub would do this and much more, and is no dependency of the base install: two kinds of request are needed
here. Its rules are kept: the token goes to the Hub's own host only, never to the store that it redirects to.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from galore_mem.errors import GaloreMemError, NetworkError, UsageError
from galore_mem.hub.environment import Environment

TIMEOUT_S = 10.0
ATTEMPTS = 3
_PAUSES_S = (0.3, 1.0)
_AGAIN = {429, 500, 502, 503, 504}


class MissingFileError(UsageError):
    """The repository has no such file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer of the Hub."""

    data: bytes
    commit: str
    """The commit that the file belongs to; empty where the server does not say."""


class Client:
    """Talks to one endpoint.

    Args:
        environment: endpoint and token.
    """

    def __init__(self, environment: Environment) -> None:
        self._endpoint = environment.endpoint
        self._token = environment.token
        self._opener: OpenerDirector = build_opener(_Redirects(urlsplit(self._endpoint).netloc))
        if urlsplit(self._endpoint).scheme not in ("http", "https"):
            raise UsageError(
                f"HF_ENDPOINT {self._endpoint!r} is no http address", "", "give one like https://huggingface.co"
            )

    def file(self, repository: str, revision: str, name: str, limit: int) -> Reply:
        """A whole file of at most `limit` bytes.

        Raises:
            MissingFileError: there is none of that name.
            UsageError: no such repository or revision, no access, or a larger file.
            NetworkError: the Hub does not answer.
        """
        reply = self._get(repository, revision, name, {}, limit + 1)
        if len(reply.data) > limit:
            raise UsageError(
                f"{name} of {repository} has more than {limit >> 20} MiB", "", "download it and give its path"
            )
        return reply

    def stretch(self, repository: str, revision: str, name: str, start: int, length: int) -> Reply:
        """Bytes from `start` on, fewer where the file ends; a server that sends all is cut off.

        Raises:
            MissingFileError, UsageError, NetworkError: as `file`.
        """
        headers = {"Range": f"bytes={start}-{start + length - 1}"}
        reply = self._get(repository, revision, name, headers, start + length, start)
        return Reply(data=reply.data[:length], commit=reply.commit)

    def _get(
        self, repository: str, revision: str, name: str, headers: Mapping[str, str], most: int, start: int = 0
    ) -> Reply:
        url = f"{self._endpoint}/{quote(repository)}/resolve/{quote(revision, safe='')}/{quote(name)}"
        request = Request(url, headers={"User-Agent": "galore-mem", **headers})
        if self._token:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        failure: GaloreMemError = NetworkError(f"{self._endpoint} does not answer")
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(_PAUSES_S[attempt - 1])
            try:
                with self._opener.open(request, timeout=TIMEOUT_S) as response:
                    data: bytes = response.read(most)
                    partial = response.status == 206
                    return Reply(data=data if partial else data[start:], commit=_commit(response.headers))
            except HTTPError as error:
                failure = _refusal(error, repository, revision, name, bool(self._token))
                if error.code not in _AGAIN:
                    break
            except (URLError, HTTPException, OSError) as error:
                failure = _silence(self._endpoint, error)
        raise failure


class _Redirects(HTTPRedirectHandler):
    """Follows redirects; the token goes along only where the host stays the same."""

    def __init__(self, host: str) -> None:
        self._host = host

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is None:
            return None
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        token = req.get_header("Authorization")
        if token and new.netloc == self._host == old.netloc and new.scheme == old.scheme:
            following.add_unredirected_header("Authorization", token)
        return following


def _commit(headers: HTTPMessage) -> str:
    found = headers.get("X-Repo-Commit") or ""
    return found if len(found) == 40 and found.isalnum() else ""


def _refusal(error: HTTPError, repository: str, revision: str, name: str, has_token: bool) -> GaloreMemError:
    """What an HTTP status means, by the header that says it more exactly."""
    reason = error.headers.get("X-Error-Code", "") if error.headers else ""
    if reason == "GatedRepo":
        fix = "accept its terms on its page, then set HF_TOKEN" if not has_token else "accept its terms on its page"
        return UsageError(f"{repository} is gated", "its authors let in only those who accepted its terms", fix)
    if reason == "RevisionNotFound":
        return UsageError(f"{repository} has no revision {revision!r}", "", "give a branch, a tag or a commit after @")
    if reason == "EntryNotFound" or (error.code == 404 and not reason):
        return MissingFileError(f"{repository} has no {name}", "", "is it a transformers model, and not an adapter?")
    if error.code in (401, 403, 404):
        why = "it does not exist, or it is private" if reason in ("RepoNotFound", "") else reason
        fix = "check its name" + ("" if has_token else ", or set HF_TOKEN to a token that may read it")
        return UsageError(f"the Hub does not show {repository}", why, fix)
    return NetworkError(f"the Hub answers {error.code} for {repository}", f"{error.reason}", "try again later")


def _silence(endpoint: str, error: Exception) -> NetworkError:
    reason = getattr(error, "reason", None) or error
    return NetworkError(
        f"{endpoint} cannot be reached",
        f"{getattr(reason, 'strerror', None) or reason}",
        "check the network, or give the path of a config.json",
    )
