"""How fast a report reads, attributes and writes, what it takes of the host's memory, and how soon Chromium shows it.

    python benchmarks/report_speed.py                    ten thousand and a million events, Tape and snapshot
    python benchmarks/report_speed.py --snapshot-gib 1   a snapshot of that size with stacks 60 frames deep instead
    python benchmarks/report_speed.py --check            exits 1 where a page exceeds 8 MB or memory its bound

Runs from the repository's root. Each row is a process of its own, so that peaks of memory do not mix. Bytes are of the
process's whole peak; its multiple of the file leaves out what Python and the page's own code take.
"""

import argparse
import json
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

LAYERS = 32
EVENTS_PER_LAYER = 8
LARGEST_PAGE_BYTES = 8_000_000
MOST_MEMORY_PER_SNAPSHOT_BYTE = 5
MOST_MEMORY_PER_EVENT_BYTES = 400
"""A Tape's bytes say little: it is compressed."""
BASE_MEMORY_BYTES = 150 << 20
LARGE_BYTES = 20_000_000
"""Of a file whose multiple means something beside what any page takes."""
HEAD = (
    f"{'file':<28}{'MB':>8}{'events':>11}{'read':>12}{'attribute':>12}{'write':>8}{'page MB':>9}"
    f"{'host MiB':>10}{'of the file':>13}{'load s':>8}"
)
"""`of the file`: the peak after reading and the whole peak, as multiples of the snapshot."""


def made_file(folder: Path, events: int, kind: str) -> Path:
    """A made-up training run as a Tape, or as the snapshot that torch would have written."""
    from galore_mem.tapes.file import write_tape
    from tests.galore_mem.answers.made_runs import made_run

    steps = max(1, round(events / (LAYERS * EVENTS_PER_LAYER)))
    tape = made_run(layers=LAYERS, steps=steps)
    path = folder / f"{events}.{'pickle' if kind == 'snapshot' else 'tape.json.gz'}"
    if kind == "tape":
        write_tape(path, tape)
    else:
        from tests.galore_mem.answers.made_snapshots import snapshot_of

        path.write_bytes(pickle.dumps(snapshot_of(tape), protocol=4))
    return path


def peak_bytes() -> int:
    """This process's peak of memory: `ru_maxrss` of a child begins at its parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def measure(path: Path, page: Path) -> dict[str, float]:
    """Seconds of each part, and this process's peak of memory."""
    from plotly.offline import get_plotlyjs

    from galore_mem.answers.report.answer import report_of
    from galore_mem.render.report.page import page_html
    from galore_mem.tapes.recording import read_recording

    get_plotlyjs()
    before = peak_bytes()
    start = time.perf_counter()
    tape = read_recording(path)
    read, peak_read = time.perf_counter(), peak_bytes()
    report = report_of([(path.name, tape)])
    attributed = time.perf_counter()
    page.write_text(page_html(report), encoding="utf-8")
    written = time.perf_counter()
    return {
        "events": report.runs[0].lives.events,
        "file_bytes": path.stat().st_size,
        "read_s": read - start,
        "attribute_s": attributed - read,
        "write_s": written - attributed,
        "page_bytes": page.stat().st_size,
        "before_bytes": before,
        "peak_read_bytes": peak_read,
        "peak_host_bytes": peak_bytes(),
    }


def loaded(page: Path) -> float | None:
    """Seconds until Chromium has drawn the page; None without one."""
    executable = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if executable is None:
        return None
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        start = time.perf_counter()
        tab.goto(page.as_uri())
        tab.wait_for_selector("html[data-ready=yes]", timeout=300_000)
        seconds = time.perf_counter() - start
        browser.close()
    return seconds


def main() -> int:
    """Print one row per file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--snapshot-gib", type=float, help="one snapshot of that size, with stacks")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder for the files and pages")
    parser.add_argument("--measure", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return 0
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.keep or Path(temporary)).resolve()
        print(HEAD)
        for path in files(folder, arguments.events, arguments.snapshot_gib):
            failed |= not print_row(path, folder / f"{path.name}.html")
    return int(failed and arguments.check)


def files(folder: Path, events: list[int], snapshot_gib: float | None) -> Iterator[Path]:
    """The files, each made when it is asked for."""
    if snapshot_gib is not None:
        from tests.galore_mem.answers.streamed_snapshots import write_snapshot

        path = folder / f"{snapshot_gib:g}GiB.pickle"
        write_snapshot(path, size_bytes=int(snapshot_gib * 2**30))
        yield path
        return
    for number in events:
        for kind in ("tape", "snapshot"):
            yield made_file(folder, number, kind)


def print_row(path: Path, page: Path) -> bool:
    """Measure one file in a process of its own; whether page and memory are within their bounds."""
    command = [sys.executable, __file__, "--measure", str(path), str(page)]
    row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    shown = loaded(page)
    rate = {name: row["events"] / row[name] for name in ("read_s", "attribute_s")}
    is_snapshot = path.suffix == ".pickle"
    is_large = is_snapshot and row["file_bytes"] > LARGE_BYTES
    multiples = [
        (row[name] - row["before_bytes"]) / row["file_bytes"] for name in ("peak_read_bytes", "peak_host_bytes")
    ]
    print(
        f"{path.name:<28}{row['file_bytes'] / 1e6:>8.1f}{row['events']:>11,}{rate['read_s']:>10,.0f}/s"
        f"{rate['attribute_s']:>10,.0f}/s{row['write_s']:>7.1f}s{row['page_bytes'] / 1e6:>9.2f}"
        f"{row['peak_host_bytes'] / 2**20:>10,.0f}"
        f"{'{:.1f}x, {:.1f}x'.format(*multiples) if is_large else '-':>13}"
        f"{'-' if shown is None else f'{shown:.1f}':>8}",
        flush=True,
    )
    per_file = MOST_MEMORY_PER_SNAPSHOT_BYTE * row["file_bytes"] if is_snapshot else 0
    allowed = BASE_MEMORY_BYTES + max(per_file, MOST_MEMORY_PER_EVENT_BYTES * row["events"] * (not is_snapshot))
    return bool(row["page_bytes"] <= LARGEST_PAGE_BYTES and row["peak_host_bytes"] <= allowed)


if __name__ == "__main__":
    raise SystemExit(main())
