"""Are recommendations of `fit` confirmed by their traces? Thirty varied pairs of model and card.

    python -m benchmarks.fit_confirm [--write docs/fit-confirm.json] [FIRST [LAST]]

Each recommendation is traced (the real model class and optimizer on fake tensors, through the allocator's replica);
it holds if the upper bound of the trace (context and unseen scratch included) stays under the one that was
recommended by, and so under what the card leaves.
"""

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

from galore_mem.answers.confirm import confirm
from galore_mem.answers.fit import fit
from galore_mem.answers.reasons import describe

GIB = 2**30
PAIRS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("llama-60m", "2080-ti", {"seq": 512}),
    ("llama-60m", "4060", {"global_batch": 64}),
    ("llama-130m", "t4", {"seq": 1024, "precision": "amp-fp16"}),
    ("llama-130m", "3060", {"objective": "sequence", "batch": 4}),
    ("llama-350m", "4060", {"seq": 1024}),
    ("llama-350m", "3060", {"methods": ("galore-adamw",)}),
    ("llama-350m", "v100-16gb", {"precision": "fp32", "seq": 512}),
    ("llama-1b", "4060", {"seq": 512}),
    ("llama-1b", "3080", {"seq": 1024, "checkpointing": "none"}),
    ("llama-1b", "4090", {"seq": 2048, "global_batch": 32}),
    ("llama-1b", "a10", {"methods": ("adafactor",), "seq": 1024}),
    ("qwen2.5-0.5b", "3060", {"seq": 1024}),
    ("qwen2.5-0.5b", "4060", {"methods": ("lora",), "seq": 2048}),
    ("qwen3-0.6b", "4060", {"seq": 512}),
    ("qwen3-0.6b", "3090", {"objective": "sequence", "batch": 1}),
    ("qwen3-1.7b", "4080", {"seq": 1024}),
    ("qwen3-4b", "4090", {"seq": 1024}),
    ("llama-3.2-1b", "3060", {"seq": 512}),
    ("llama-3.2-1b", "4090", {"seq": 4096}),
    ("llama-3.2-3b", "4090", {"seq": 1024}),
    ("llama-7b", "4090", {}),
    ("llama-7b", "4060ti-16gb", {"seq": 512}),
    ("llama-7b", "5090", {"seq": 2048}),
    ("llama-7b", "a100-40gb", {"objective": "rank"}),
    ("llama-7b", "a100-80gb", {"seq": 2048}),
    ("mistral-7b", "4090", {"seq": 1024}),
    ("llama-3-8b", "5090", {"seq": 1024}),
    ("llama-3-8b", "h100", {"seq": 4096}),
    ("qwen3-8b", "a6000", {"seq": 2048}),
    ("llama-2-13b", "a100-80gb", {"seq": 2048}),
)


def main() -> int:
    words = sys.argv[1:]
    path = None
    if words[:1] == ["--write"]:
        path, words = Path(words[1]), words[2:]
    first, last = (int(words[0]) if words else 1), (int(words[1]) if len(words) > 1 else len(PAIRS))
    rows = []
    for number, (model, card, wishes) in enumerate(PAIRS[first - 1 : last], first):
        start = time.perf_counter()
        found = fit(model, gpus=card, **wishes).best
        searched = time.perf_counter() - start
        row: dict[str, Any] = {
            "model": model,
            "gpu": card,
            "wishes": {key: str(value) for key, value in wishes.items()},
        }
        confirmed = confirm(found)
        if confirmed is None or found.recommended is None:
            row["recommended"] = None
        else:
            row |= {
                "recommended": describe(found.recommended.option.workload),
                "search_seconds": round(searched, 3),
                "usable_bytes": found.recommended.option.usable_bytes,
                "upper_bytes": confirmed.analytic.upper_bytes,
                "analytic_live_bytes": confirmed.analytic.peak_live_bytes,
                "traced_live_bytes": confirmed.traced.peak_live_bytes,
                "replayed": found.recommended.option.is_replayed,
                "replayed_reserved_bytes": confirmed.analytic.peak_reserved_bytes,
                "traced_reserved_bytes": confirmed.traced.peak_reserved_bytes,
                "traced_process_bytes": confirmed.traced.process_bytes,
                "traced_upper_bytes": confirmed.traced.upper_bytes,
                "holds": confirmed.holds and confirmed.fit.verdict == "fits",
            }
        rows.append(row)
        print(number, json.dumps(row), flush=True)
        gc.collect()
    if path is not None:
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    failed = [row for row in rows if row["recommended"] and not row["holds"]]
    nothing = sum(row["recommended"] is None for row in rows)
    print(f"{len(rows) - nothing - len(failed)} of {len(rows)} hold, {len(failed)} do not, {nothing} have no answer")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
