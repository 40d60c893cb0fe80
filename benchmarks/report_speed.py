"""How fast a report reads, attributes and writes, what it takes of the host's memory, and how soon Chromium shows it.

    python benchmarks/report_speed.py            ten thousand and a million events, from a Tape and from a snapshot
    python benchmarks/report_speed.py --check    exits 1 where a page exceeds 8 MB or memory its bound

Runs from the repository's root. Each row is a process of its own, so that peaks of memory do not mix.
"""

import argparse
import json
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

LAYERS = 32
EVENTS_PER_LAYER = 8
LARGEST_PAGE_BYTES = 8_000_000
MOST_MEMORY_PER_FILE_BYTE = 24
BASE_MEMORY_BYTES = 400 << 20


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


def measure(path: Path, page: Path) -> dict[str, float]:
    """Seconds of each part, and this process's peak of memory."""
    from galore_mem.answers.report.answer import report_of
    from galore_mem.render.report.page import page_html
    from galore_mem.tapes.recording import read_recording

    start = time.perf_counter()
    tape = read_recording(path)
    read = time.perf_counter()
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
        "peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def loaded(page: Path) -> float | None:
    """Seconds until Chromium has drawn the page; None without one."""
    import shutil

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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder for the files and pages")
    parser.add_argument("--measure", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return 0
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        print(
            f"{'file':<28}{'MB':>8}{'read':>12}{'attribute':>12}{'write':>8}{'page MB':>9}{'host MiB':>10}{'load s':>8}"
        )
        for events in arguments.events:
            for kind in ("tape", "snapshot"):
                path = made_file(folder, events, kind)
                page = folder / f"{path.name}.html"
                command = [sys.executable, __file__, "--measure", str(path), str(page)]
                row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                shown = loaded(page)
                rate = {name: row["events"] / row[name] for name in ("read_s", "attribute_s", "write_s")}
                print(
                    f"{path.name:<28}{row['file_bytes'] / 1e6:>8.1f}{rate['read_s']:>10,.0f}/s"
                    f"{rate['attribute_s']:>10,.0f}/s{row['write_s']:>7.1f}s{row['page_bytes'] / 1e6:>9.2f}"
                    f"{row['peak_host_bytes'] / 2**20:>10,.0f}{'-' if shown is None else f'{shown:.1f}':>8}",
                    flush=True,
                )
                allowed = BASE_MEMORY_BYTES + MOST_MEMORY_PER_FILE_BYTE * max(row["file_bytes"], 56 * row["events"])
                failed |= row["page_bytes"] > LARGEST_PAGE_BYTES or row["peak_host_bytes"] > allowed
    return int(failed and arguments.check)


if __name__ == "__main__":
    raise SystemExit(main())
