"""Coverage-guided fuzzing with atheris: `python tests/fuzz/fuzz.py recording -max_total_time=600`.

Run it from the root of the repository, in an environment of its own that has atheris. Inputs that broke something go to
`seeds/` once fixed; `test_seeds.py` runs them all.
"""

import sys
from importlib import import_module
from pathlib import Path


def main() -> None:
    """Fuzz one target; further arguments are libFuzzer's."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    atheris = import_module("atheris")
    with atheris.instrument_imports(include=["estimators", "galore_mem", "profiles"]):
        targets = import_module("tests.fuzz.targets")
    name, *options = sys.argv[1:] or ["recording"]
    seeds = Path(__file__).parent / "seeds" / name
    found = Path("/tmp/galore-mem-fuzz") / name
    found.mkdir(parents=True, exist_ok=True)
    arguments = [sys.argv[0], str(found), str(seeds), "-rss_limit_mb=2048", f"-artifact_prefix={found}-", *options]
    atheris.Setup(arguments, getattr(targets, name))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
