"""What brings an extra: by folder where the package came from one, by name where an index knows it."""

import json
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from galore_mem import installed

PROJECT = '[project]\nname = "galore-mem"\n'


@pytest.fixture
def lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The package lies in a folder without pyproject.toml, as in site-packages."""
    site = tmp_path / "site-packages"
    monkeypatch.setattr(installed, "__file__", str(site / "galore_mem" / "installed.py"))
    (site / "galore_mem").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return site


def noted(monkeypatch: pytest.MonkeyPatch, content: dict[str, object] | None) -> None:
    """What pip wrote down."""

    def distribution(_: str) -> SimpleNamespace:
        if content is None:
            raise metadata.PackageNotFoundError
        return SimpleNamespace(read_text=lambda _: json.dumps(content) if content else None)

    monkeypatch.setattr(metadata, "distribution", distribution)


def test_from_an_index(lies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted(monkeypatch, {})
    assert installed.command("train") == "pip install 'galore-mem[train]'"
    assert installed.command("") == "pip install 'galore-mem'"


def test_a_checkout_that_is_not_installed(lies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted(monkeypatch, None)
    (lies / "pyproject.toml").write_text('[project]\nname = "training"\n')
    assert installed.command("train") == "pip install 'galore-mem[train]'", "somebody else's project lies there"
    (lies / "pyproject.toml").write_text(PROJECT)
    assert installed.command("train") == f"pip install '{lies}[train]'"
    monkeypatch.chdir(lies)
    assert installed.command("train") == "pip install '.[train]'"


def test_installed_from_a_folder(lies: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As README says: `pip install .`; what runs then lies elsewhere."""
    checkout = tmp_path / "a checkout"
    checkout.mkdir()
    noted(monkeypatch, {"url": checkout.as_uri(), "dir_info": {}})
    assert installed.command("train") == "pip install 'galore-mem[train]'", "the folder is gone"
    (checkout / "pyproject.toml").write_text(PROJECT)
    assert installed.command("train") == f"pip install '{checkout}[train]'"
    noted(monkeypatch, {"url": checkout.as_uri(), "dir_info": {"editable": True}})
    assert installed.command("train") == f"pip install -e '{checkout}[train]'"


def test_installed_from_a_repository(lies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted(monkeypatch, {"url": "https://example.org/galore-mem.git", "vcs_info": {"vcs": "git"}})
    assert installed.command("train") == "pip install 'galore-mem[train] @ git+https://example.org/galore-mem.git'"
