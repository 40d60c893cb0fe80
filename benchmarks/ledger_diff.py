"""Where the closed form and the trace differ: moment by moment, category by category, tensor by tensor, event by event.

    python benchmarks/ledger_diff.py gpt2 --layers 3 --seq 64
    python benchmarks/ledger_diff.py path/to/config.json --precision amp-bf16 --batch 2 --checkpointing full
    python benchmarks/ledger_diff.py gpt2 --layers 3 --all             # categories that agree, too
    python benchmarks/ledger_diff.py gpt2 --layers 3 --events          # births and deaths side by side, as a diff

Options are those of `galore-mem trace`; `--layers` makes the model as shallow as that. While a family is written, keep
one process: `compare(workload)` returns what is printed, and `reload_families()` takes in edited modules.
"""

import argparse
import difflib
import importlib
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

sys.path.insert(0, str(Path(__file__).parents[1]))

from estimators.analytic.attention import attention_kernel
from estimators.analytic.cards import USUAL
from estimators.analytic.composition import composition
from estimators.analytic.course import course_of
from estimators.analytic.estimate import estimate
from estimators.analytic.tensors import rounded
from estimators.footprint import Footprint
from estimators.workload import Workload
from galore_mem.answers.recorded import resident_bytes
from galore_mem.answers.settings import Settings, workloads
from galore_mem.answers.steps import record
from galore_mem.profiler.recording import Recording, alive_at, peaks_of
from galore_mem.witness import HOST
from profiles.configs import read_config
from profiles.errors import InputError
from profiles.gpus import SMALL_WORKSPACE_BYTES
from profiles.models import find_model

RESIDENT = ("weights", "buffers", "optimizer_states", "projectors")
STEP_WINDOWS = ("forward_end", "loss", "backward_start", "backward_end")
SCALAR_BYTES = 512
"""One-element tensors are left out of the events."""
LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One category at one moment; an empty category is the moment's total."""

    moment: str
    category: str
    analytic_bytes: int
    traced_bytes: int

    @property
    def apart_bytes(self) -> int:
        """What the closed form has more."""
        return self.analytic_bytes - self.traced_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Lone:
    """Tensors of one size and category that only one side has at a moment, and all of that size there."""

    moment: str
    side: str
    nbytes: int
    category: str
    count: int
    names: tuple[str, ...]
    """Of every tensor of that size and category on that side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Both answers to one workload."""

    workload: Workload
    kernel: str
    analytic: Footprint
    recording: Recording
    rows: tuple[Row, ...]
    lone: tuple[Lone, ...]
    """At the end of forward, and at the traced peak."""
    resident_apart_bytes: dict[str, int]
    """Categories that stay, where the closed form does not have them to the byte."""

    @property
    def traced_live_bytes(self) -> int:
        """The traced live peak."""
        return max(row.traced_bytes for row in self.rows if not row.category)

    @property
    def peak_error(self) -> float:
        """Of the analytic live peak, relative."""
        return self.analytic.peak_live_bytes / self.traced_live_bytes - 1

    @property
    def worst_error(self) -> float:
        """The largest difference of any category at a steady moment, relative to the traced live peak."""
        steady = [abs(row.apart_bytes) for row in self.rows if row.moment.startswith("steady")]
        return max(steady) / self.traced_live_bytes


def compare(workload: Workload) -> Comparison:
    """Estimate and trace a workload."""
    kernel = attention_kernel(workload, None)
    recording = record(workload, kernel, workspace_bytes=SMALL_WORKSPACE_BYTES, card=USUAL)
    peaks = {f"{peak.iteration} {peak.window}": peak for peak in peaks_of(recording) if peak.window != "between"}
    analytic = estimate(workload)
    ours = {moment.label: moment for moment in analytic.moments}
    rows: list[Row] = []
    for label in sorted(ours.keys() | peaks.keys()):
        mine = ours[label].by_category if label in ours else {}
        real = peaks[label].by_category if label in peaks else {}
        row = partial(Row, moment=label)
        rows.append(row(category="", analytic_bytes=sum(mine.values()), traced_bytes=sum(real.values())))
        rows += [
            row(category=category, analytic_bytes=mine.get(category, 0), traced_bytes=real.get(category, 0))
            for category in sorted(mine.keys() | real.keys())
        ]
    top = max(peaks, key=lambda label: peaks[label].live_bytes)
    lone: list[Lone] = []
    for label in dict.fromkeys(("steady forward_end", top)):
        moment = ours.get(label)
        played = composition(workload, moment) if moment is not None else ()
        ledger = [(rounded(row.nbytes), row.category, row.name) for row in played for _ in range(row.count)]
        alive = alive_at(recording, peaks[label].position)
        lives = [(rounded(life.nbytes), life.category, f"{life.module} {life.operator}") for life in alive]
        lone += [*_lone(label, "analytic", ledger, lives), *_lone(label, "traced", lives, ledger)]
    resident = resident_bytes(recording)
    apart = {key: analytic.resident_bytes[key] - resident[key] for key in RESIDENT}
    return Comparison(
        workload=workload,
        kernel=kernel,
        analytic=analytic,
        recording=recording,
        rows=tuple(rows),
        lone=tuple(lone),
        resident_apart_bytes={key: size for key, size in apart.items() if size},
    )


Tensor = tuple[int, str, str]
"""Rounded bytes, category, name."""


def _lone(moment: str, side: str, own: list[Tensor], other: list[Tensor]) -> Iterator[Lone]:
    """What `own` has and `other` lacks; large ones first."""
    left = Counter(tensor[:2] for tensor in own) - Counter(tensor[:2] for tensor in other)
    for (nbytes, category), count in sorted(left.items(), reverse=True):
        if category == "workspaces":  # one row of the closed form, one life each in a trace
            continue
        names = dict.fromkeys(name for size, kind, name in own if (size, kind) == (nbytes, category))
        yield Lone(moment=moment, side=side, nbytes=nbytes, category=category, count=count, names=tuple(names))


def events(found: Comparison) -> Iterator[str]:
    """Forward and backward of the steady iteration as both sides have it, as a diff: `-` analytic, `+` traced.

    Events of at most 512 B are left out. The model must be as deep as is played.
    """
    course = course_of(found.workload, found.kernel, USUAL)
    played = course.layout.played
    mine = [
        (course.sizes[abs(code) - 1] * (1 if code > 0 else -1), played.kinds[abs(code) - 1].name)
        for code in played.events
    ]
    real: list[tuple[int, str]] = []
    for begin, end, iteration, window in found.recording.stretches():
        if iteration != "steady" or window not in STEP_WINDOWS:
            continue
        for code in found.recording.events[begin:end]:
            life = found.recording.lives[abs(code) - 1]
            if life.category != HOST:
                real.append((rounded(life.nbytes) * (1 if code > 0 else -1), f"{life.module} {life.operator}"))
    left, right = ([item for item in side if abs(item[0]) > SCALAR_BYTES] for side in (mine, real))
    matcher = difflib.SequenceMatcher(None, [size for size, _ in left], [size for size, _ in right], autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            for (size, name), (_, other) in zip(left[a:b], right[c:d], strict=True):
                yield f"  {size:12,}  {name:60} | {other}"
            continue
        yield from (f"- {size:12,}  {name}" for size, name in left[a:b])
        yield from (f"+ {size:12,}  {name}" for size, name in right[c:d])


def printed(found: Comparison, *, all_rows: bool = False) -> Iterator[str]:
    """Lines for a person: moments that differ (or all), and lone tensors."""
    for row in found.rows:
        if not row.category or row.apart_bytes or all_rows:
            name = row.category or f"{row.moment}:"
            indent = "    " if row.category else ""
            yield f"{indent}{name:28}{row.analytic_bytes:16,}{row.traced_bytes:16,}{row.apart_bytes:+14,}"
    for tensor in found.lone:
        names = "; ".join(tensor.names[:4]) + (" ..." if len(tensor.names) > 4 else "")
        yield f"only {tensor.side} at {tensor.moment}: {tensor.count} x {tensor.nbytes:,} {tensor.category}: {names}"
    if found.resident_apart_bytes:
        yield f"what stays differs: {found.resident_apart_bytes}"
    yield f"peak {100 * found.peak_error:+.4f} %, worst category {100 * found.worst_error:.4f} % of the peak"


def shallow(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """The config of a model with so many layers."""
    changed: dict[str, Any] = {key: layers for key in LAYER_KEYS if key in config}
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        changed["layer_types"] = kinds[:layers]
    return config | (changed or {"num_hidden_layers": layers})


def workload_of(config: dict[str, Any], name: str = "model", *, method: str = "sgd", **words: Any) -> Workload:  # noqa: ANN401
    """A workload of a `config.json`'s content; `words` are fields of `Settings`."""
    from profiles.configs import shape_from_config

    (workload,) = workloads(shape_from_config(config, name), (method,), Settings(**{"seq": 64, **words}))
    return workload


RELOADED = ("shadow.ops", "shadow.norms", "shadow.attention", "shadow.loss", "shadow.program")
"""Modules that are edited while a family is written, below `estimators.analytic`; what uses others comes later."""


def reload_families() -> None:
    """Take in edited readers, operators and programs, and forget what was computed with the old ones."""
    loaded = [f"estimators.analytic.{name}" for name in RELOADED]
    shadow = [name for name in sys.modules if name.startswith("estimators.analytic.shadow.")]
    skipped = {f"estimators.analytic.shadow.{name}" for name in ("tape", "engine", "structure", "weights", "play")}
    loaded += sorted(set(shadow) - set(loaded) - skipped)
    for package in ("profiles.families", "estimators.analytic.families"):
        family = "estimators.analytic.families.family"
        loaded += sorted(name for name in sys.modules if name.startswith(f"{package}.") and name != family)
    for name in loaded:
        importlib.reload(sys.modules[name])
    for name in [name for name in sys.modules if name.startswith(("estimators.", "profiles."))]:
        for value in vars(sys.modules[name]).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()
    sys.modules["estimators.analytic.course"]._COURSES.clear()


def parsed(description: str, **more: int | bool) -> tuple[Workload, dict[str, Any]]:
    """The workload that a command line names, and its further options, given with their defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("model", help="a catalogue name, or the path of a config.json")
    parser.add_argument("--method", default="sgd")
    parser.add_argument("--layers", type=int, help="make the model as shallow as that")
    for option, default in more.items():
        how: dict[str, Any] = {"action": "store_true"} if default is False else {"type": int, "default": default}
        parser.add_argument(f"--{option}", **how)
    kinds = get_type_hints(Settings)
    for field in fields(Settings):
        option = "--" + field.name.replace("_", "-")
        if kinds[field.name] is bool:
            parser.add_argument(option, action="store_true")
        elif field.name == "target_modules":
            parser.add_argument(option, nargs="+")
        else:
            parser.add_argument(option, type=_number)
    options = vars(parser.parse_args())
    words = {field.name: options[field.name] for field in fields(Settings) if options[field.name] is not None}
    name = options["model"]
    try:
        config = read_config(name) if Path(name).exists() else dict(find_model(name).config)
        if options["layers"]:
            config = shallow(config, options["layers"])
        return workload_of(config, name, method=options["method"], **words), options
    except InputError as error:
        sys.exit(f"{error}")


def main() -> None:
    workload, options = parsed("where the closed form and the trace differ", all=False, events=False)
    found = compare(workload)
    for line in events(found) if options["events"] else printed(found, all_rows=options["all"]):
        print(line)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


if __name__ == "__main__":
    main()
