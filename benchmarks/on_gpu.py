"""Everything that waits for a GPU, in one call on a bare machine: the tests marked `gpu`, `calibrate`, `validate`.

    python3 benchmarks/on_gpu.py                              # about ten minutes; results in ./on-gpu, or in $OUT
    python3 benchmarks/on_gpu.py --minutes 9 --wheels .whl    # packages that the machine lacks, as wheels in a folder
    python3 benchmarks/on_gpu.py --without tests              # go on from the records in profiles/measured
    python3 benchmarks/on_gpu.py --dry-run                    # what would run, and what is missing; needs no GPU
    python3 benchmarks/on_gpu.py --device cpu --minutes 4     # the same way from end to end, on CPU tensors

Needs Python 3.11, torch and transformers; no network, no pip, nothing of this package installed. Without pytest the
tests are left out; without bitsandbytes, peft or galore_torch the rows that need them fail, one line each, and the
others go on. Bring the records home with `tar -xzf records.tar.gz -C profiles/measured`.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
REQUIRED = ("torch", "transformers")
OPTIONAL = ("pynvml", "pytest", "hypothesis", "bitsandbytes", "peft", "galore_torch", "accelerate", "rich", "cyclopts")
LARGEST_ARCHIVE_BYTES = 15 << 20
"""What comes back from a machine is often limited by file."""
MOST_TAPE_ARCHIVES = 2
SIDE_BY_SIDE = ("tapes", "optim")
"""Rooms whose tests start a process each, or look at nothing but their own tensors."""
TEST_WORKERS = 6
REPACK_SECONDS = 30.0
TEST_SHARE = 0.35
"""Of the time, at most, for tests: what is left is the matrix's."""
ENDING_SECONDS = 20.0
"""Kept back for packing."""


def unpacked_wheels(folder: Path, target: Path) -> list[str]:
    """Put the packages of every wheel of a folder into `target`, as pip would for `--no-deps --target`; their names.

    A member that would leave `target` is passed over.
    """
    names = []
    for wheel in sorted(folder.glob("*.whl")):
        names.append("-".join(wheel.name.split("-")[:2]))
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                place = _place_in_site(member.filename)
                if place is None or member.is_dir():
                    continue
                destination = target / place
                destination.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, destination.open("wb") as file:
                    shutil.copyfileobj(source, file)
    return names


def _place_in_site(name: str) -> PurePosixPath | None:
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/"):
        return None
    if parts[0].endswith(".data"):
        return PurePosixPath(*parts[2:]) if len(parts) > 2 and parts[1] in ("purelib", "platlib") else None
    return PurePosixPath(*parts)


def gpu_tests(*, side_by_side: bool) -> list[Path]:
    """Test files that name the mark: those that bear others on the same GPU, or those that look at what a GPU holds."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    marked = [path for path in files if "mark.gpu" in path.read_text(encoding="utf-8")]
    return [path for path in marked if (path.parent.name in SIDE_BY_SIDE) is side_by_side]


def packed(records: Path, out: Path) -> list[Path]:
    """Archives of a folder of records, none larger than what comes back: JSON first, Tapes as far as there is room."""
    written = [_archive(out / "records.tar.gz", sorted([*records.glob("*.json"), *records.glob("*.log")]))]
    group: list[Path] = []
    groups = [group]
    size = 0
    for tape in sorted(records.glob("*.tape.json.gz")):
        nbytes = tape.stat().st_size + 1024
        if size + nbytes > LARGEST_ARCHIVE_BYTES:
            group, size = [], 0
            groups.append(group)
        group.append(tape)
        size += nbytes
    for number, members in enumerate(groups[:MOST_TAPE_ARCHIVES], 1):
        if members:
            written.append(_archive(out / f"tapes-{number}.tar.gz", members))
    return written


def _archive(path: Path, members: Iterable[Path]) -> Path:
    temporary = path.with_name(f".{path.name}.part")
    with tarfile.open(temporary, "w:gz") as archive:
        for member in members:
            archive.add(member, arcname=member.name)
    temporary.replace(path)
    return path


class Run:
    """One call: an end that is kept, an output folder, and the environment of everything that is started."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.start = time.monotonic()
        self.end = self.start + 60 * options.minutes - ENDING_SECONDS
        self.device: str = options.device
        self.only: str | None = options.only
        self.out: Path = options.out
        self.work = Path(tempfile.mkdtemp(prefix="galore-mem-on-gpu."))
        self.records = self.work / "records"
        self.records.mkdir()
        for record in sorted((ROOT / "profiles" / "measured").glob("*.json")):
            shutil.copy(record, self.records)
        self.summary: list[str] = []
        site = self.work / "site"
        self.wheels = unpacked_wheels(options.wheels, site) if options.wheels and options.wheels.is_dir() else []
        path = [str(ROOT), str(site), os.environ.get("PYTHONPATH", "")]
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "GALORE_MEM_CALIBRATION": str(self.work / "calibration.json"),
            "HF_HUB_OFFLINE": "1",
        }
        sys.path[:0] = [str(ROOT), str(site)]

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()

    def say(self, line: str) -> None:
        """A line for the eyes and for the summary."""
        print(f"[{time.monotonic() - self.start:5.0f} s] {line}", flush=True)
        self.summary.append(line)

    def call(self, name: str, words: Sequence[str], seconds: float) -> int:
        """Run a program with its output in OUT/name.txt and on the screen; 124 where its time was up."""
        log = self.out / f"{name}.txt"
        with log.open("wb") as file:
            process = subprocess.Popen(
                words, stdout=file, stderr=subprocess.STDOUT, env=self.environment, cwd=self.work
            )
            until = time.monotonic() + max(1.0, min(seconds, self.left))
            while process.poll() is None:
                try:
                    process.wait(max(0.1, min(REPACK_SECONDS, until - time.monotonic())))
                except subprocess.TimeoutExpired:
                    packed(self.records, self.out)
                    if time.monotonic() >= until:
                        process.send_signal(signal.SIGINT)
                        _ended(process)
                        return 124
        return process.returncode

    def close(self) -> None:
        """Pack what there is, and write the summary."""
        calibration = self.work / "calibration.json"
        if calibration.exists():
            shutil.copy(calibration, self.out)
        for archive in packed(self.records, self.out):
            self.say(f"{archive} {archive.stat().st_size >> 10} KiB")
        (self.out / "summary.txt").write_text("\n".join(self.summary) + "\n", encoding="utf-8")
        shutil.rmtree(self.work, ignore_errors=True)


def _ended(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def tail(path: Path, lines: int) -> list[str]:
    """The end of a log."""
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]


def test_words(*, side_by_side: bool) -> list[str]:
    """How pytest is called: plugins that are not installed must not be asked for, nor files that do not matter."""
    options = ["-q", "-rA", "-m", "gpu", "-p", "no:cacheprovider"]
    options += ["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")]
    options += ["-o", "addopts=--import-mode=importlib --strict-markers", "--continue-on-collection-errors"]
    options += ["-o", "filterwarnings=default"]  # what other releases warn of is not what is measured here
    if side_by_side and find_spec("xdist") is not None:
        options += ["-n", str(min(TEST_WORKERS, os.cpu_count() or 1))]
    return [sys.executable, "-m", "pytest", *options, *map(str, gpu_tests(side_by_side=side_by_side))]


def validate_words(run: Run, minutes: float) -> list[str]:
    """How the matrix is called."""
    words = [sys.executable, "-P", "-m", "galore_mem", "validate", "--device", run.device, "--into", str(run.records)]
    words += ["--limit-minutes", f"{minutes:.2f}"]
    return [*words, "--only", run.only] if run.only else words


def look_around(run: Run) -> bool:
    """Say what is here; whether what is needed is."""
    run.say(f"Python {sys.version.split()[0]}, wheels: {', '.join(run.wheels) or 'none'}")
    for names, word in ((REQUIRED, "required"), (OPTIONAL, "optional")):
        absent = [name for name in names if find_spec(name) is None]
        run.say(f"{word} packages: {'all here' if not absent else 'missing are ' + ', '.join(absent)}")
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=60)
        run.say(f"nvidia-smi: {(done.stdout or done.stderr).strip()}")
    else:
        run.say("nvidia-smi is not here")
    return all(find_spec(name) is not None for name in REQUIRED)


def test(run: Run) -> list[int]:
    """The tests marked `gpu`."""
    if find_spec("pytest") is None or find_spec("hypothesis") is None:
        run.say("tests: left out, pytest or hypothesis is not installed")
        return []
    codes = []
    until = run.left * (1 - TEST_SHARE)
    for name, side_by_side in (("tests", False), ("tests-of-histories", True)):
        codes.append(run.call(name, test_words(side_by_side=side_by_side), run.left - until))
        run.say(f"{name}: exit code {codes[-1]}; {' '.join(tail(run.out / f'{name}.txt', 1))}")
    return codes


def everything(run: Run, without: Sequence[str]) -> int:
    """Tests, calibration, matrix; the worst exit code."""
    codes = [] if "tests" in without else test(run)
    if run.device == "cuda" and "calibrate" not in without:
        codes.append(run.call("calibrate", [sys.executable, "-P", "-m", "galore_mem", "calibrate"], 90))
        run.say(f"calibrate: exit code {codes[-1]}")
        for line in tail(run.out / "calibrate.txt", 20):
            run.say(f"  {line}")
    codes.append(run.call("validate", validate_words(run, max(0.1, run.left / 60 - 0.2)), run.left))
    run.say(f"validate: exit code {codes[-1]}")
    for line in tail(run.out / "validate.txt", 150):
        run.say(f"  {line}")
    return max(codes)


def dry(run: Run) -> int:
    """What would run."""
    run.say(f"results: {run.out}")
    code = 0
    for side_by_side in (False, True):
        words = test_words(side_by_side=side_by_side)
        run.say(f"tests: {' '.join(words)}")
        code = max(code, run.call("tests", [*words, "--collect-only"], 120))
        run.say(f"collected, exit code {code}: {' '.join(tail(run.out / 'tests.txt', 1))}")
    run.say(f"matrix: {' '.join(validate_words(run, run.left / 60))}")
    code = max(code, run.call("validate", [sys.executable, "-P", "-m", "galore_mem", "validate", "--rows"], 60))
    rows = tail(run.out / "validate.txt", 1000)
    seconds = sum(float(row.split()[0]) for row in rows[1:])
    run.say(f"{len(rows) - 1} rows, {seconds:.0f} s on the GPU by their estimates")
    return code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.5, help="everything ends by then (default: 9.5)")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels to use, such as .whl")
    parser.add_argument(
        "--out", type=Path, default=Path(os.environ.get("OUT") or "on-gpu"), help="folder of the results"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", help="rows of the matrix whose names contain this")
    parser.add_argument("--without", nargs="+", choices=("tests", "calibrate"), default=(), help="leave these out")
    parser.add_argument("--dry-run", action="store_true", help="say what would run")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    options.out = options.out.resolve()
    run = Run(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what there is gets packed
    try:
        complete = look_around(run)
        if options.dry_run:
            return dry(run)
        return everything(run, options.without) if complete else 2
    finally:
        run.close()


if __name__ == "__main__":
    sys.exit(main())
