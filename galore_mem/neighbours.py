"""The guard: `estimators` and `profiles` must be the ones that lie beside `galore_mem`.

Both are top-level names that a training project may well use for modules of its own. The rooms that need them check
first, so that a stranger's module gives one clear line and not a strange ImportError, or worse, wrong figures.
"""

import os
import sys

from galore_mem.errors import GaloreMemError

NEIGHBOURS = ("estimators", "profiles")


class NeighbourError(GaloreMemError):
    """A package that galore-mem brings along is missing, or hidden by another one of the same name."""


def check_neighbours() -> None:
    """Make sure that `estimators` and `profiles` mean galore-mem's own.

    Raises:
        NeighbourError: one of them is missing, or is somebody else's.
    """
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for name in NEIGHBOURS:
        origin = _origin(name)
        if origin is None:
            raise NeighbourError(
                f"the package {name} is missing beside galore_mem in {home}",
                "galore-mem is not installed completely",
                "run: pip install --force-reinstall galore-mem",
            )
        own = os.path.join(home, name, "__init__.py")
        if os.path.realpath(origin) != os.path.realpath(own):
            raise NeighbourError(
                f"{origin} hides galore-mem's own package {name}",
                "Python found it first on sys.path",
                "rename it, or run the console script galore-mem from another folder with PYTHONPATH unset",
            )


def _origin(name: str) -> str | None:
    """The file that `import name` runs or has run; importlib.util would say the same, at the price of its import."""
    if name in sys.modules:
        module = sys.modules[name]
        return getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "a module without file")
    for finder in sys.meta_path:
        spec = finder.find_spec(name, None)
        if spec is not None:
            return spec.origin or next(iter(spec.submodule_search_locations or ()), None)
    return None
