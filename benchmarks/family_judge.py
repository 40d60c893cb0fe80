"""Every family that plans cover, beside its trace: a grid of catalogue models under a few ways to run a step.

    python benchmarks/family_judge.py --into benchmarks/families.jsonl      # goes on where it stopped
    python benchmarks/family_judge.py --into benchmarks/families.jsonl --order 1    # another process beside it
    python benchmarks/family_judge.py --again                               # formulas have changed: their half anew
    python benchmarks/family_judge.py --page docs/families.md               # the page, from the rows that are kept

One JSON object per workload is appended: both live peaks in bytes, the largest difference of any category at any moment
of a steady iteration, what stays where it differs, and what the allocator's replica reserves for the traced history and
for the one that is written from the closed form, by default and under expandable segments. `benchmarks/ledger_diff.py`
names the tensors behind a difference, and `benchmarks/history_diff.py` says where the two histories part. What is said
of reserved memory here `benchmarks/judge_report.py` puts into profiles/exact.jsonl, beside the rows of
`benchmarks/judge.py`, and `benchmarks/judge_expandable.py --again` into profiles/exact_expandable.jsonl.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.pages import paragraph
from benchmarks.reserved import MOST_PCT, beside_defaults, family_table, largest, left_out, under_expandable
from estimators.allocator.replay import replay
from estimators.allocator.settings import DEFAULTS, EXPANDABLE
from estimators.analytic.attention import attention_kernel
from estimators.analytic.estimate import estimate
from estimators.analytic.history import history_of
from estimators.analytic.windows import window_is_reached
from estimators.checks import check
from estimators.workload import Workload
from galore_mem.answers.lengths import events_of
from galore_mem.answers.settings import Settings, workloads
from profiles.configs import shape_from_config
from profiles.errors import InputError
from profiles.models import find_model
from profiles.shapes import ModelShape

ROWS = Path(__file__).with_name("families.jsonl")
MODELS: dict[str, tuple[str, ...]] = {
    "llama": ("smollm2-135m",),
    "mistral": ("mistral-7b-v0.1",),
    "qwen2": ("qwen2.5-0.5b",),
    "qwen3": ("qwen3-0.6b",),
    "gemma2": ("gemma-2-2b",),
    "gemma3_text": ("gemma-3-1b",),
    "phi3": ("phi-3-mini",),
    "olmo2": ("olmo-2-7b",),
    "gpt2": ("gpt2", "gpt2-medium"),
    "gpt_neox": ("pythia-160m", "pythia-1b"),
    "opt": ("opt-125m", "opt-350m"),
    "phi": ("phi-2",),
    "bloom": ("bloom-560m",),
    "falcon": ("falcon-7b",),
    "mixtral": ("mixtral-8x7b",),
    "qwen3_moe": ("qwen3-30b-a3b",),
    "gpt_oss": ("gpt-oss-20b",),
    "bert": ("bert-base",),
    "roberta": ("roberta-base",),
    "t5": ("t5-base",),
}
"""Models of the catalogue by family; those without a closed form are left out until they have one."""
RUNS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("adamw", {"seq": 256}),
    ("adamw-8bit", {"seq": 256, "batch": 2, "precision": "amp-bf16", "checkpointing": "full"}),
    ("sgd", {"seq": 192, "batch": 2, "precision": "fp32", "padding": True}),
    ("galore-adamw-8bit", {"seq": 128, "batch": 2, "attention": "eager", "update": "per-layer"}),
    ("lora", {"seq": 256, "batch": 2, "grad_accumulation": 2}),
    ("adafactor", {"seq": 192, "dropout": 0.1, "keep_outputs": True, "use_cache": True}),
)
"""Methods and settings."""
BEYOND: tuple[str, dict[str, Any]] = ("lora", {"seq": 4608, "checkpointing": "full"})
"""Only for models whose sliding window it reaches."""


LARGER: dict[str, str] = {
    "gemma2": "gemma-2-9b",
    "gemma3_text": "gemma-3-12b",
    "phi3": "phi-4",
    "olmo2": "olmo-2-7b",
    "gpt2": "gpt2-xl",
    "gpt_neox": "pythia-6.9b",
    "opt": "opt-6.7b",
    "phi": "phi-2",
    "bloom": "bloom-7b1",
    "falcon": "falcon-7b",
    "mixtral": "mixtral-8x7b",
    "qwen3_moe": "qwen3-30b-a3b",
    "gpt_oss": "gpt-oss-20b",
    "bert": "bert-large",
    "roberta": "roberta-large",
    "t5": "t5-large",
}
"""A model of each family that `benchmarks/judge.py` has none of, as large as people train on one card."""
LAYERS = 8
"""Of such models in most runs; their widths are kept. One layer more takes its time and does what others do."""
ASKED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("galore-adamw-8bit", {"update": "per-layer"}),
    ("adamw-8bit", {}),
    ("lora", {}),
    ("galore-adamw", {}),
    ("adamw", {}),
    ("galore-adafactor", {"update": "per-layer"}),
    ("sgd-momentum", {}),
    ("galore-adamw-8bit", {"implementation": "galore-torch"}),
    ("relora", {}),
    ("low-rank", {}),
)
WAYS: tuple[dict[str, Any], ...] = (
    {"seq": 1024, "checkpointing": "full"},
    {"seq": 2048, "batch": 2, "checkpointing": "full", "loss": "chunked"},
    {"seq": 512, "batch": 5, "checkpointing": "full", "grad_accumulation": 2},
    {"seq": 512, "batch": 2},
    {"seq": 1024, "batch": 3, "checkpointing": "full", "precision": "amp-bf16"},
    {"seq": 1024, "checkpointing": "full", "attention": "efficient"},
    {"seq": 512, "batch": 2, "checkpointing": "full", "attention": "math"},
)
"""What `plan` and `fit` are asked for: every method of a family meets another way, and each family begins elsewhere."""
FILLED: tuple[str, dict[str, Any]] = (
    "galore-adamw-8bit",
    {"update": "per-layer", "batch": 64, "seq": 1024, "checkpointing": "full", "loss": "chunked"},
)
"""How `fit` fills a card: `plan` calls no run with more tokens in a chunked loss compared."""
ON_HOPPER: tuple[tuple[str, dict[str, Any]], ...] = (
    ("galore-adamw-8bit", {"update": "per-layer", "seq": 1024, "checkpointing": "full", "attention": "cudnn"}),
    ("adamw", {"seq": 512, "batch": 2, "attention": "cudnn"}),
)
"""Where torch asks cuDNN first; `benchmarks/judge.py` has no such run."""
IN_FP32: tuple[str, dict[str, Any]] = (
    "adamw-8bit",
    {"seq": 512, "batch": 2, "checkpointing": "full", "precision": "fp32"},
)
"""Which leaves grouped heads no kernel but separate products."""
BY_PRODUCTS: tuple[str, dict[str, Any]] = (
    "adamw",
    {"seq": 512, "batch": 2, "checkpointing": "full", "attention": "math"},
)
OTHERS = {"llama": "llama-3.2-1b", "mistral": "mistral-7b-v0.1", "qwen2": "qwen2.5-1.5b", "qwen3": "qwen3-1.7b"}
"""Models of its families for what it has none of."""


def grid() -> Iterator[tuple[str, str, Workload]]:
    """Family, name of the row, workload; the first way to run for every model comes first."""
    yield from _of_all_models()
    for number, (method, variant) in enumerate(ASKED):
        for place, (family, name) in enumerate(LARGER.items()):
            shape, name = _model(name, LAYERS if number else None)
            for turn in range(len(WAYS)):
                way = WAYS[(number and number + place + turn) % len(WAYS)]
                words = variant | way | {"seq": min(way["seq"], shape.max_position_embeddings)}
                (workload,) = workloads(shape, (method,), Settings(**words))
                if _is_possible(workload):
                    yield family, title(name, method, words), workload
                    break
    every = OTHERS | LARGER
    narrow = every | {"gemma3_text": "gemma-3-27b"}  # whose heads are not too wide for cuDNN, as all others' are
    runs = ((every, FILLED), *((narrow, run) for run in ON_HOPPER), (every, IN_FP32), (OTHERS, BY_PRODUCTS))
    for models, (method, words) in runs:
        for family, name in models.items():
            shape, name = _model(name, None if (method, words) == FILLED else LAYERS)
            own = words | {"seq": min(words["seq"], shape.max_position_embeddings)}
            (workload,) = workloads(shape, (method,), Settings(**own))
            if _is_possible(workload):
                yield family, title(name, method, own), workload


def _model(name: str, layers: int | None) -> tuple[ModelShape, str]:
    """A model of the catalogue, as shallow as that, and what to call it."""
    from benchmarks.ledger_diff import shallow

    if layers is None:
        return find_model(name).shape, name
    return shape_from_config(shallow(dict(find_model(name).config), layers), name), f"{name} of {layers} layers"


def _of_all_models() -> Iterator[tuple[str, str, Workload]]:
    for method, words in (*RUNS, BEYOND):
        for family, names in MODELS.items():
            for name in names:
                model = find_model(name)
                if not model.planned:
                    continue
                (workload,) = workloads(model.shape, (method,), Settings(**words))
                wanted = (method, words) != BEYOND or window_is_reached(workload)
                if wanted and _is_possible(workload):
                    yield family, title(name, method, words), workload


def _is_possible(workload: Workload) -> bool:
    try:
        check(workload, None)
        attention_kernel(workload, None)
    except InputError:
        return False
    return True


def title(model: str, method: str, words: dict[str, Any]) -> str:
    """A row's name."""
    told = " ".join(key if value is True else f"{key}={value}" for key, value in words.items())
    return f"{model} {method} {told}"


def judge(family: str, name: str, workload: Workload) -> dict[str, Any]:
    """One row."""
    from benchmarks.ledger_diff import compare

    start = time.process_time()
    found = compare(workload)
    run, expanded = (replay(events_of(found.recording), settings) for settings in (DEFAULTS, EXPANDABLE))
    return {
        "family": family,
        "title": name,
        "analytic_live_bytes": found.analytic.peak_live_bytes,
        "traced_live_bytes": found.traced_live_bytes,
        "worst_category_bytes": round(found.worst_error * found.traced_live_bytes),
        "resident_apart_bytes": found.resident_apart_bytes,
        "traced_allocated_bytes": run.peak_allocated_bytes,
        "traced_reserved_bytes": run.peak_reserved_bytes,
        "traced_expandable_bytes": expanded.peak_reserved_bytes,
        **written_bytes(workload),
        "cpu_seconds": round(time.process_time() - start, 1),
    }


def written_bytes(workload: Workload) -> dict[str, int]:
    """What the history that is written from the closed form reserves, by default and under expandable segments."""
    events = history_of(workload)
    return {
        "exact_reserved_bytes": replay(events).peak_reserved_bytes,
        "exact_expandable_bytes": replay(events, EXPANDABLE).peak_reserved_bytes,
    }


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows that are there; a last line that was cut off is not."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def again() -> None:
    """Work the closed form's figures of every kept row out anew, beside the traced ones that are there."""
    kept, rows = {row["title"]: row for row in read_rows(ROWS)}, []
    for _, name, workload in grid():
        if name in kept:
            figures = {"analytic_live_bytes": estimate(workload).peak_live_bytes}
            rows.append(kept[name] | figures | written_bytes(workload))
    ROWS.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


NOTES: dict[str, tuple[str, str]] = {
    "llama": ("RMSNorm in fp32, rotary positions, grouped heads, gated MLP", ""),
    "mistral": ("LLaMA's layer with a sliding window", ""),
    "qwen2": ("LLaMA's layer with biases on q, k and v", ""),
    "qwen3": ("LLaMA's layer with a norm on each head", ""),
    "gemma2": ("capped scores and logits, windows on every other layer", "bidirectional attention"),
    "gemma3_text": ("windows on five layers of six, norms on each head", "bidirectional attention"),
    "phi3": ("fused products; a part of each head may be turned", ""),
    "olmo2": ("norms behind the blocks and over all heads", ""),
    "gpt2": (
        "Conv1D, dropouts of 0.1 in every place, and a GELU written out in Python: five tensors of the MLP's width "
        "where one kernel keeps one",
        "cross-attention, scores upcast by eager attention",
    ),
    "gpt_neox": ("fused products, a quarter of each head turned, attention beside the MLP", ""),
    "opt": (
        "learned positions of every sequence, dropout before each sum; opt-350m: norms behind the blocks and "
        "projections around narrow embeddings",
        "layers left out at random",
    ),
    "phi": ("one norm before attention and MLP, biases everywhere, the written-out GELU", "norms on queries and keys"),
    "bloom": (
        "attention by matrix products of its own, whatever the card: scores of every head are kept; a GELU that keeps "
        "its input alone",
        "products in slices",
    ),
    "falcon": (
        "a mask in every step; the smaller models have one key and value head for all queries, which no fused kernel "
        "takes: attention runs in fp32, scores and all",
        "slopes instead of positions, biases, branches one after the other",
    ),
    "mixtral": (
        "experts as stacks of matrices: the same memory whatever the routing",
        "a loss on the router, noise on its input",
    ),
    "qwen3_moe": (
        "experts as stacks of matrices: the same memory whatever the routing",
        "a loss on the router, layers without experts",
    ),
    "gpt_oss": ("experts with biases, sinks in attention", "a loss on the router"),
    "bert": ("an encoder that classifies sequences", "decoders, an MLP in pieces, regression"),
    "roberta": ("BERT's encoder with a head of two layers", "decoders, an MLP in pieces, regression"),
    "t5": ("encoder and decoder, a table of relative positions", "one half of the model alone"),
}
"""What a family is in memory, and which of its variants are refused."""


def error_pct(row: dict[str, Any]) -> float:
    """Of the closed form's live peak."""
    ratio: float = row["analytic_live_bytes"] / row["traced_live_bytes"]
    return 100 * (ratio - 1)


def page(rows: list[dict[str, Any]]) -> str:
    """The page on families."""
    worst = max(rows, key=lambda row: abs(error_pct(row)))
    equal = sum(not row["resident_apart_bytes"] for row in rows)
    lines = [
        "# Families of models, and how close the closed form is to each",
        "",
        "This page is written by `benchmarks/family_judge.py` from the rows it keeps in `benchmarks/families.jsonl`;",
        f"no figure in it is typed. {len(rows)} workloads were traced on fake tensors and laid beside the closed form",
        "that `plan` uses. Errors are signed: closed form against trace, in percent of the traced live peak. Nothing",
        "here was measured on a GPU. Which models the catalogue has of each family: [catalogue.md](catalogue.md).",
        "",
        f"Over all rows the median is {median(map(error_pct, rows)):.5f} %, the worst {error_pct(worst):+.5f} %",
        f"({worst['title']}). What is left are one-element tensors, and beyond windows one integer a token.",
        f"What stays (weights, buffers, states, projectors) is equal to the byte in {equal} of {len(rows)}.",
        "",
        "| family | models | rows | median | lowest | highest | largest, bytes | worst category at any moment |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for family, own in _by_family(rows):
        models = ", ".join(dict.fromkeys(row["title"].split()[0] for row in own))
        errors = [error_pct(row) for row in own]
        category = max(100 * row["worst_category_bytes"] / row["traced_live_bytes"] for row in own)
        largest = max(abs(row["analytic_live_bytes"] - row["traced_live_bytes"]) for row in own)
        lines.append(
            f"| {family} | {models} | {len(own)} | {median(errors):.5f} | {min(errors):+.5f} | {max(errors):+.5f} "
            f"| {largest:,} | {category:.4f} |"
        )
    lines += ["", *_reserved(rows)]
    lines += ["| family | what sets it apart in memory | refused, beside activations that are not known |"]
    lines.append("|---|---|---|")
    lines += [f"| {family} | {NOTES[family][0]} | {NOTES[family][1] or '-'} |" for family, _ in _by_family(rows)]
    ways = "; ".join(title("", method, words).strip() for method, words in RUNS)
    ways += f"; and where that reaches a sliding window {title('', *BEYOND).strip()}. On larger models, most"
    ways += f" of {LAYERS} layers, every method beside one of: {'; '.join(title('', '', way).strip() for way in WAYS)}."
    ways += f" Then {'; '.join(title('', *run).strip() for run in (FILLED, *ON_HOPPER, IN_FP32))}"
    lines += [
        "",
        f"Ways to run: {ways}.",
        "A way that a family cannot run is left out. Kinds of layers beside full and sliding attention are refused in",
        "every family.",
        "",
        "A category at a moment can be further off than the peak: two points of one moment may be nearly as high, and",
        "the two sides then name different ones. And where checkpointing makes tensors require gradients that are no",
        "parameters (T5's positions, inputs of frozen layers), a trace counts every part of such a gradient among",
        "gradients, the closed form their sum. Moments of steady iterations are compared.",
        "",
        "`python benchmarks/ledger_diff.py MODEL` lays the two sides beside each other tensor by tensor, and with",
        "`--events` birth by birth and death by death; `benchmarks/history_diff.py` does so for whole histories.",
    ]
    return "\n".join(lines) + "\n"


def _reserved(rows: list[dict[str, Any]]) -> list[str]:
    """What the allocator's replica reserves for both histories."""
    text = paragraph(
        "`plan --exact` and `fit` write a run's whole history from the closed form and replay it. Its reserved peak",
        "beside that of the traced history, both from the allocator's replica; the runs that differ most are named. A",
        "family of which no figure is more than",
        f"{MOST_PCT} % below its trace has bounds made of replays, for the kinds of runs that were compared. Left out:",
        f"{left_out(rows)}.",
    )
    expanded = [*map(under_expandable, rows)]
    more = paragraph(
        "The same of both histories under expandable segments, which `fit` takes where they make more fit. Left out:",
        f"{left_out(expanded)}. Beside the default settings traced histories reserve {beside_defaults(rows)}.",
    )
    tables = [*family_table(rows), *largest(rows)], [*family_table(expanded), *largest(expanded)]
    return [*text, *tables[0], *more, *tables[1]]


def _by_family(rows: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for family in MODELS:
        own = [row for row in rows if row["family"] == family]
        if own:
            yield family, own


def main() -> None:
    parser = argparse.ArgumentParser(description="every family beside its trace")
    parser.add_argument("--into", type=Path, help="JSONL that rows are appended to")
    parser.add_argument("--order", type=int, help="of the workloads: for another process beside this one")
    parser.add_argument("--page", type=Path, help="write the page from the rows that are kept")
    parser.add_argument("--again", action="store_true", help="formulas have changed: live peaks of the kept rows anew")
    options = parser.parse_args()
    if options.again:
        again()
    if options.page:
        options.page.write_text(page(read_rows(ROWS)), encoding="utf-8")
    wanted = list(grid()) if options.into else []
    if options.order is not None:
        Random(options.order).shuffle(wanted)
    for family, name, workload in wanted:
        if name in {row["title"] for row in read_rows(options.into)}:
            continue
        row = judge(family, name, workload)
        with options.into.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        apart = (row["exact_reserved_bytes"] - row["traced_reserved_bytes"]) / 2**20
        expanded = (row["exact_expandable_bytes"] - row["traced_expandable_bytes"]) / 2**20
        told = f"reserved {apart:+g} MiB, under expandable segments {expanded:+g} MiB"
        print(f"{error_pct(row):+8.4f} %, {told}  {row['cpu_seconds']:6.1f} s  {name}", flush=True)


if __name__ == "__main__":
    main()
