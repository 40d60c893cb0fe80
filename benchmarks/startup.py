"""How fast `galore-mem plan llama-7b --gpu 4090` answers: the whole process, against other processes, in one run.

    python benchmarks/startup.py [ROUNDS]

Every round runs each command once, in turn, so that a busy moment of the machine hits all of them; figures are medians
of wall time. `accelerate estimate-memory --help` stops before it would ask the network, so it is start-up alone.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
PYTHON = sys.executable
SCRIPTS = Path(sysconfig.get_path("scripts"))
OURS = [str(SCRIPTS / "galore-mem")] if (SCRIPTS / "galore-mem").exists() else [PYTHON, "-P", "-m", "galore_mem"]
PLAN = [*OURS, "plan", "llama-7b", "--gpu", "4090"]
COMMANDS = {
    "plan": PLAN,
    "plan --json": [*PLAN, "--json"],
    "python -c pass": [PYTHON, "-c", "pass"],
    "import rich.console": [PYTHON, "-c", "import rich.console"],
    "import cyclopts": [PYTHON, "-c", "import cyclopts"],
    "accelerate estimate-memory": [str(SCRIPTS / "accelerate"), "estimate-memory", "--help"],
}
WANTED = 12.0
"""`accelerate estimate-memory` over `plan`."""


def seconds(command: list[str]) -> float:
    """Wall time of one process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    commands = {name: words for name, words in COMMANDS.items() if shutil.which(words[0])}
    for words in commands.values():
        seconds(words)
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, words in commands.items():
            taken[name].append(seconds(words))
    plan = median(taken["plan"])
    print(f"{'median of ' + str(rounds):<28}{'ms':>8}{'least':>8}{'over plan':>11}")
    for name, values in taken.items():
        print(f"{name:<28}{median(values) * 1e3:>8.0f}{min(values) * 1e3:>8.0f}{median(values) / plan:>10.2f}x")
    if "accelerate estimate-memory" not in taken:
        print("accelerate is not installed here")
        return 0
    return 0 if median(taken["accelerate estimate-memory"]) / plan >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
