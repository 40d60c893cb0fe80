"""What other tools answer for a workload: one tool, one process, one JSON line. Called by `side_by_side.py`.

    python -P benchmarks/peers.py TOOL WORKLOAD

Each tool is asked in the way its documentation shows, with everything it has an option for; what it has none for, it
cannot know. The figure is what it calls the memory of training on one GPU.
"""

import contextlib
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from estimators.workload import Workload

ROOT = Path(__file__).resolve().parents[1]
GIB = 2**30


class UnableError(Exception):
    """The tool has no answer to the question."""


def real_model(workload: Workload) -> Any:  # noqa: ANN401
    """The transformers model on the meta device."""
    import torch
    from transformers import AutoModelForCausalLM

    from galore_mem.training.config import config_of

    dtype = torch.bfloat16 if workload.precision == "bf16" else torch.float32
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config_of(workload), dtype=dtype, attn_implementation="sdpa")


def has_gate(workload: Workload) -> bool:
    """Whether the MLP has three matrices."""
    return workload.model.model_type not in ("gpt2",)


def accelerate(workload: Workload) -> int:
    """`accelerate estimate-memory`: its column "Training using Adam", which is the largest of its four parts."""
    from accelerate.commands.estimate import estimate_training_usage
    from accelerate.utils import calculate_maximum_sizes

    if workload.method.name != "adamw":
        raise UnableError("Adam only")
    total, _ = calculate_maximum_sizes(real_model(workload).float())
    dtype = "float32" if workload.precision == "fp32" else "bfloat16"
    return int(max(estimate_training_usage(total, dtype).values()))


def kitsune(workload: Workload) -> int:
    """torch-kitsune's `predict_memory`."""
    from kitsune.predict import predict_memory

    if workload.method.name != "adamw":
        raise UnableError("adam, adamw, sgd")
    model = real_model(workload)
    dtype = "bfloat16" if workload.precision == "bf16" else "float32"
    found = predict_memory(
        model,
        input_shape=(workload.batch.sequence_length,),
        batch_size=workload.batch.micro_batch_size,
        dtype=dtype,
        optimizer="adamw",
    )
    parts = ("param_bytes", "gradient_bytes", "optimizer_bytes", "activation_bytes", "overhead_bytes")
    return sum(int(getattr(found, name)) for name in parts)


def deepspeed(workload: Workload) -> int:
    """DeepSpeed's ZeRO-2 estimator on one GPU without offload: model states of mixed-precision Adam."""
    import ast

    if workload.method.name != "adamw":
        raise UnableError("Adam only")
    source = Path(os.environ["PEER_DEEPSPEED"]).read_text(encoding="utf-8")
    name = "estimate_zero2_model_states_mem_needs"
    # The package itself wants a compiler; this function of it is arithmetic.
    (function,) = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == name]
    names: dict[str, Any] = {}
    exec(compile(ast.Module([function], []), name, "exec"), names)
    parameters = sum(parameter.numel() for parameter in real_model(workload).parameters())
    return int(names[name](parameters, cpu_offload=False)[1])


def cookbook(workload: Workload) -> int:
    """EleutherAI cookbook's calc_transformer_mem.py."""
    if workload.method.name != "adamw":
        raise UnableError("Adam only")
    model, batch = workload.model, workload.batch
    words: dict[str, object] = {
        "num-layers": model.num_hidden_layers,
        "hidden-size": model.hidden_size,
        "num-attention-heads": model.num_attention_heads,
        "vocab-size": model.vocab_size,
        "ffn-expansion-factor": model.intermediate_size / model.hidden_size,
        "num-mlp-linears": 3 if has_gate(workload) else 2,
        "kv-size-ratio": model.num_key_value_heads / model.num_attention_heads,
        "sequence-length": batch.sequence_length,
        "batch-size-per-gpu": batch.micro_batch_size,
        "num-gpus": 1,
        "zero-stage": 0,
    }
    line = [sys.executable, os.environ["PEER_COOKBOOK"], *(f"--{name}={value}" for name, value in words.items())]
    if workload.checkpointing == "full":
        line.append("--checkpoint-activations")
    if workload.precision == "fp32":
        line.append("--disable-mixed-precision")
    text = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    (found,) = re.findall(r"Per-GPU Memory Required for Training: ([\d.]+) GiB", text)
    return round(float(found) * GIB)


def llm_analysis(workload: Workload) -> int:
    """llm-analysis: weights, gradients, optimizer states and activations."""
    from llm_analysis.analysis import ActivationRecomputation, LLMAnalysis
    from llm_analysis.config import ModelConfig, get_dtype_config_by_name, get_gpu_config_by_name

    if workload.method.name != "adamw":
        raise UnableError("Adam only")
    if workload.precision == "fp32":
        raise UnableError("16 bits at most")
    model, batch = workload.model, workload.batch
    config = ModelConfig(
        name=model.name,
        num_layers=model.num_hidden_layers,
        n_head=model.num_attention_heads,
        num_key_value_heads=model.num_key_value_heads,
        hidden_dim=model.hidden_size,
        vocab_size=model.vocab_size,
        max_seq_len=model.max_position_embeddings,
        ffn_embed_dim=model.intermediate_size,
        expansion_ratio=model.intermediate_size / model.hidden_size,
        model_type="llama",
    )
    dtype = get_dtype_config_by_name("w16a16e16")
    analysis = LLMAnalysis(config, get_gpu_config_by_name("a100-sxm-80gb"), dtype)
    recomputed = ActivationRecomputation.FULL if workload.checkpointing == "full" else ActivationRecomputation.NONE
    found = analysis.training(
        batch_size_per_gpu=batch.micro_batch_size,
        gradient_accumulation_steps=1,
        seq_len=batch.sequence_length,
        total_num_tokens=10**9,
        activation_recomputation=recomputed,
        mlp_gated_linear_units=has_gate(workload),
    )
    return int(found["(weight+op_state+grad+act)_memory_per_gpu"])


def mem_tracker(workload: Workload) -> int:
    """MemTracker of torch around two iterations on fake tensors."""
    import torch
    from torch._subclasses import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker
    from transformers import AutoModelForCausalLM

    from galore_mem.training.config import config_of

    if workload.method.name != "adamw":
        raise UnableError("GaLore's refresh needs values")
    dtype = torch.bfloat16 if workload.precision == "bf16" else torch.float32
    batch = workload.batch
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = AutoModelForCausalLM.from_config(config_of(workload), dtype=dtype, attn_implementation="sdpa")
        model.train()
        if workload.checkpointing == "full":
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
        tracker = MemTracker()
        tracker.track_external(model, optimizer)
        with tracker:
            for iteration in range(2):
                ids = torch.zeros(batch.micro_batch_size, batch.sequence_length, dtype=torch.long)
                model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if iteration == 0:
                    tracker.reset_mod_stats()
        peak = tracker.get_tracker_snapshot("peak")
    return int(next(iter(peak.values()))["Total"])


TOOLS = {
    "accelerate": accelerate,
    "kitsune": kitsune,
    "deepspeed": deepspeed,
    "cookbook": cookbook,
    "llm-analysis": llm_analysis,
    "mem-tracker": mem_tracker,
}


def main() -> int:
    from benchmarks.side_by_side import CASES

    sys.path[1:1] = [path for path in os.environ.get("PEERS", "").split(os.pathsep) if path]
    tool, case = sys.argv[1:]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            answer: dict[str, Any] = {"bytes": TOOLS[tool](CASES[case].workload)}
    except UnableError as error:
        answer = {"unable": str(error)}
    except Exception as error:  # a peer that fails is an answer, too
        missing = isinstance(error, (ModuleNotFoundError, KeyError))
        answer = {"missing" if missing else "failed": f"{type(error).__name__}: {error}"[:200]}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    if importlib.util.find_spec("benchmarks") is None:
        sys.path.insert(0, str(ROOT))
    sys.exit(main())
