"""What a script says of weights in four bits: how they are loaded, and what is done before adapters are added."""

from collections.abc import Iterator

from estimators.workload import Workload
from galore_mem.training.heads import PEFT_TASKS, trained_head

COMPUTE_DTYPES = {"fp32": "torch.float32", "amp-fp16": "torch.float16"}
"""By precision; bf16 elsewhere."""


def load_dtype(workload: Workload) -> str:
    """The dtype that the model is loaded in, and that its layers compute in."""
    return COMPUTE_DTYPES.get(workload.precision, "torch.bfloat16")


def quantisation(workload: Workload) -> Iterator[str]:
    """Makes `quantization`."""
    yield "quantization = BitsAndBytesConfig("
    yield '    load_in_4bit=True, bnb_4bit_quant_type="nf4",'
    double = workload.method.bnb_4bit_use_double_quant
    yield f"    bnb_4bit_compute_dtype={load_dtype(workload)}, bnb_4bit_use_double_quant={double},"
    yield ")"


def preparation(workload: Workload) -> Iterator[str]:
    """What is planned under autocast: everything that is not quantised in fp32."""
    if workload.precision.startswith("amp"):
        yield "model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)"


def from_peft(workload: Workload) -> str:
    """What is imported from peft."""
    prepares = workload.method.quantised and workload.precision.startswith("amp")
    return "from peft import LoraConfig, get_peft_model" + ", prepare_model_for_kbit_training" * prepares


def adapters(workload: Workload) -> str:
    """LoraConfig's call."""
    method, task = workload.method, PEFT_TASKS[trained_head(workload.model)]
    targets = "all-linear" if method.target_modules == ("all-linear",) else list(method.target_modules)
    dropout = f", lora_dropout={method.lora_dropout}" if method.lora_dropout else ""
    return f'LoraConfig(r={method.rank}, target_modules={targets!r}{dropout}, task_type="{task}")'
