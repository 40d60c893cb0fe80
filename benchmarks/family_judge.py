"""Every family that plans cover, beside its trace: a grid of catalogue models under a few ways to run a step.

    python benchmarks/family_judge.py --into benchmarks/families.jsonl      # goes on where it stopped
    python benchmarks/family_judge.py --again                               # formulas have changed: their half anew
    python benchmarks/family_judge.py --page docs/families.md               # the page, from the rows that are kept

One JSON object per workload is appended: both live peaks in bytes, the largest difference of any category at any moment
of a steady iteration, and what stays where it differs. `benchmarks/ledger_diff.py` names the tensors behind it.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from estimators.analytic.attention import attention_kernel
from estimators.analytic.estimate import estimate
from estimators.analytic.windows import window_is_reached
from estimators.checks import check
from estimators.workload import Workload
from galore_mem.answers.settings import Settings, workloads
from profiles.errors import InputError
from profiles.models import find_model

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


def grid() -> Iterator[tuple[str, str, Workload]]:
    """Family, name of the row, workload; the first way to run for every model comes first."""
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
    return {
        "family": family,
        "title": name,
        "analytic_live_bytes": found.analytic.peak_live_bytes,
        "traced_live_bytes": found.traced_live_bytes,
        "worst_category_bytes": round(found.worst_error * found.traced_live_bytes),
        "resident_apart_bytes": found.resident_apart_bytes,
        "cpu_seconds": round(time.process_time() - start, 1),
    }


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows that are there; a last line that was cut off is not."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def again() -> None:
    """Work the closed form's live peak of every kept row out anew, beside the traced one that is there."""
    known = {name: workload for _, name, workload in grid()}
    rows = read_rows(ROWS)
    for row in rows:
        row["analytic_live_bytes"] = estimate(known[row["title"]]).peak_live_bytes
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
    lines += ["", "| family | what sets it apart in memory | refused, beside activations that are not known |"]
    lines.append("|---|---|---|")
    lines += [f"| {family} | {NOTES[family][0]} | {NOTES[family][1] or '-'} |" for family, _ in _by_family(rows)]
    ways = "; ".join(title("", method, words).strip() for method, words in RUNS)
    ways += f"; and where that reaches a sliding window {title('', *BEYOND).strip()}"
    lines += [
        "",
        f"Ways to run: {ways}.",
        "A way that a family cannot run is left out. Kinds of layers beside full and sliding attention are refused in",
        "every family.",
        "",
        "A category at a moment can be further off than the peak: two points of one moment may be nearly as high, and",
        "the two sides then name different ones. Moments of steady iterations are compared.",
        "",
        "`python benchmarks/ledger_diff.py MODEL` lays the two sides beside each other tensor by tensor, and with",
        "`--events` birth by birth and death by death.",
    ]
    return "\n".join(lines) + "\n"


def _by_family(rows: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for family in MODELS:
        own = [row for row in rows if row["family"] == family]
        if own:
            yield family, own


def main() -> None:
    parser = argparse.ArgumentParser(description="every family beside its trace")
    parser.add_argument("--into", type=Path, help="JSONL that rows are appended to")
    parser.add_argument("--page", type=Path, help="write the page from the rows that are kept")
    parser.add_argument("--again", action="store_true", help="formulas have changed: live peaks of the kept rows anew")
    options = parser.parse_args()
    if options.again:
        again()
    if options.page:
        options.page.write_text(page(read_rows(ROWS)), encoding="utf-8")
    for family, name, workload in grid() if options.into else ():
        if name in {row["title"] for row in read_rows(options.into)}:
            continue
        row = judge(family, name, workload)
        with options.into.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{error_pct(row):+8.4f} %  {row['cpu_seconds']:6.1f} s  {name}", flush=True)


if __name__ == "__main__":
    main()
