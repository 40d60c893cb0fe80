"""What the environment says about the Hub, by the variables that huggingface_hub reads (its constants.py)."""

import os
from dataclasses import dataclass

DEFAULT_ENDPOINT = "https://huggingface.co"
_TRUE = {"1", "ON", "YES", "TRUE"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """How the Hub is reached, if at all."""

    endpoint: str
    token: str
    """Empty where there is none."""
    is_offline: bool
    hub_cache: str
    """Where transformers and huggingface_hub keep what they fetched."""
    own_cache: str
    """Where galore-mem keeps configurations and counts."""


def environment() -> Environment:
    """The environment of this process."""
    home = _path("HF_HOME") or os.path.join(_path("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "huggingface")
    return Environment(
        endpoint=(os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/"),
        token=_token(home),
        is_offline=_is_set("HF_HUB_OFFLINE") or _is_set("TRANSFORMERS_OFFLINE"),
        hub_cache=_path("HF_HUB_CACHE") or _path("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub"),
        own_cache=_own_cache(),
    )


def _path(name: str) -> str:
    return os.path.expanduser(os.environ.get(name, ""))


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").upper() in _TRUE


def _token(home: str) -> str:
    """From the environment, or from the file that `hf auth login` writes."""
    if _is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        return ""
    token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or ""
    if not token:
        try:
            with open(_path("HF_TOKEN_PATH") or os.path.join(home, "token"), encoding="utf-8") as file:
                token = file.read(4096)
        except (OSError, UnicodeDecodeError):
            return ""
    token = token.strip()
    return token if token.isascii() and token.isprintable() else ""


def _own_cache() -> str:
    from platformdirs import user_cache_dir

    return os.path.join(user_cache_dir("galore-mem", appauthor=False), "hub")
