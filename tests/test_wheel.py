"""What people get from pip: a wheel that plans in an environment without torch."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("galore_mem", "estimators", "profiles")


def run(*words: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of executables of a fresh environment that holds the wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder / "env", with_pip=True)
    scripts = folder / "env" / ("Scripts" if sys.platform == "win32" else "bin")
    run(scripts / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=folder)
    return scripts


def test_the_wheel_holds_packages_data_types_and_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for package in PACKAGES:
        assert f"{package}/py.typed" in names
    sources = [path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*")]
    data = [name for name in sources if name.endswith((".py", ".jsonl", ".json"))]
    assert set(data) <= set(names)
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_a_fresh_environment_plans_without_torch(installed: Path, tmp_path: Path) -> None:
    plan = json.loads(run(installed / "galore-mem", "plan", "llama-7b", "--gpu", "4090", "--json", cwd=tmp_path))
    assert plan["schema"] == "galore-mem/plan/1"
    assert len(plan["plans"]) == 6
    assert "8-bit" in run(installed / "galore-mem", "methods", cwd=tmp_path)
    packages = json.loads(run(installed / "python", "-m", "pip", "list", "--format", "json", cwd=tmp_path))
    names = {package["name"].lower() for package in packages}
    assert {"galore-mem", "cyclopts", "rich", "textual", "plotly", "nvidia-ml-py"} <= names
    assert not names & {"torch", "transformers", "accelerate", "bitsandbytes", "numpy"}
