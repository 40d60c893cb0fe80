"""Where this package came from, and so what brings more of it."""

import os

NAME = "galore-mem"


def command(extra: str) -> str:
    """What to type for an extra; an empty one means the base install.

    A package from a folder, be it a checkout that runs as it lies or one that pip installed, is asked for by that
    folder: no index need know its name.
    """
    wanted = f"[{extra}]" if extra else ""
    url, editable = _source()
    if url.startswith(("http", "ssh", "git")):
        return f"pip install '{NAME}{wanted} @ {url}'"
    folder = url
    if not folder:
        return f"pip install '{NAME}{wanted}'"
    here = os.path.isdir(os.curdir) and os.path.samefile(folder, os.curdir)
    return f"pip install {'-e ' if editable else ''}'{os.curdir if here else folder}{wanted}'"


def _source() -> tuple[str, bool]:
    """A folder that holds this package's source, or a URL, empty where an index knows it; whether it is editable."""
    beside = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    url, editable = _recorded()
    if _is_source(beside):
        return beside, editable
    if url.startswith("file:"):
        from urllib.parse import urlsplit
        from urllib.request import url2pathname

        folder = url2pathname(urlsplit(url).path)
        return (folder if _is_source(folder) else ""), editable
    return url, False


def _is_source(folder: str) -> bool:
    """Whether the folder's pyproject.toml is this package's."""
    try:
        with open(os.path.join(folder, "pyproject.toml"), encoding="utf-8") as file:
            return f'name = "{NAME}"' in file.read(4096)
    except (OSError, ValueError):
        return False


def _recorded() -> tuple[str, bool]:
    """What pip wrote down about the source (PEP 610), and whether it was installed to be edited."""
    import json
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        noted = json.loads(distribution(NAME).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return "", False
    url, control = str(noted.get("url", "")), noted.get("vcs_info", {}).get("vcs", "")
    return f"{control}+{url}" if control else url, bool(noted.get("dir_info", {}).get("editable"))
