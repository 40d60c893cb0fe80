"""What `fit --emit` writes runs, on a tiny model."""

import os
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from galore_mem.answers.fit import FitResult, fit
from galore_mem.answers.wishes import Wishes
from galore_mem.errors import UsageError
from galore_mem.render.emit_python import python_script
from galore_mem.render.emit_transformers import training_arguments

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaMA as `save_pretrained` writes it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    path = tmp_path_factory.mktemp("models") / "tiny"
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=128,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def found(folder: Path, method: str, update: str = "whole", **words: Any) -> FitResult:  # noqa: ANN401
    usual: dict[str, Any] = {"batch": 2, "seq": 32, "checkpointing": "none", "loss": "full", "precision": "fp32"}
    return fit(str(folder), gpus="4090", methods=(method,), update=update, **(usual | words))


CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("adamw", "whole", {}),
    ("adamw", "per-layer", {"loss": "chunked"}),
    ("adafactor", "whole", {"precision": "amp-bf16", "checkpointing": "full"}),
    ("sgd-momentum", "whole", {"batch": None, "global_batch": 4, "loss": "chunked"}),
    ("lora", "whole", {"rank": 4, "checkpointing": "full", "loss": "chunked"}),
    ("qlora", "whole", {"rank": 4, "precision": "amp-bf16", "checkpointing": "full"}),
    ("qlora", "whole", {"rank": 4, "precision": "bf16"}),
    ("galore-adamw", "whole", {"rank": 8, "precision": "bf16"}),
    ("galore-adamw", "per-layer", {"rank": 8, "batch": 2, "global_batch": 4, "checkpointing": "full"}),
    ("galore-adafactor", "per-layer", {"rank": 8, "target_modules": ("mlp",)}),
]


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize(("method", "update", "words"), CASES, ids=lambda value: str(value))
def test_the_script_trains(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    method: str,
    update: str,
    words: dict[str, Any],
) -> None:
    script = tmp_path / "run.py"
    script.write_text(python_script(found(folder, method, update, **words)), encoding="utf-8")
    monkeypatch.setattr("sys.argv", [str(script), str(folder), "--steps", "2"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    before = {name: value.clone() for name, value in _weights(folder).items()}
    after = runpy.run_path(str(script), run_name="__main__")["model"]
    assert re.fullmatch(r"(step \d: loss \d\.\d{3}\n){2}", capsys.readouterr().out)
    changed = [name for name, value in after.named_parameters() if not _same(before, name, value)]
    assert changed
    if method == "qlora":  # in four bits every weight is another one; only adapters are trained
        changed = [name for name, value in after.named_parameters() if value.requires_grad]
    assert (method in ("lora", "qlora")) == all("lora" in name for name in changed)


def _weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def _same(before: dict[str, Any], name: str, value: Any) -> bool:  # noqa: ANN401
    old = before.get(name.removeprefix("base_model.model.").replace(".base_layer", ""))
    return old is not None and torch.equal(old, value.detach().to(old.dtype))


@pytest.mark.parametrize("trainer", [False, True])
def test_the_settings_that_were_planned_are_made_first(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainer: bool
) -> None:
    """The allocator's before torch is imported, and the kernels' before the model is there."""
    words: dict[str, Any] = {"attention": "efficient", "alloc_conf": "expandable_segments:True", "trainer": trainer}
    planned = found(folder, "adamw", **words)
    assert planned.best.option is not None
    text = training_arguments(planned) if trainer else python_script(planned)
    assert text.index("PYTORCH_CUDA_ALLOC_CONF") < text.index("import torch" if not trainer else "from transformers")
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "")
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    off: list[str] = []
    for name in ("flash", "mem_efficient", "cudnn", "math"):
        monkeypatch.setattr(f"torch.backends.cuda.enable_{name}_sdp", lambda on, name=name: off.append(f"{name} {on}"))
    (tmp_path / "run.py").write_text(text.replace("output_dir=", "use_cpu=True, output_dir="), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["run.py", str(folder), "--steps", "1"])
    runpy.run_path("run.py", run_name="__main__")
    assert os.environ["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    assert off == ["flash False", "cudnn False"]


def test_eager_attention_and_the_fused_kernel_are_what_the_script_asks_for() -> None:
    script = python_script(fit("llama-3b", gpus="4090", methods=("adamw",), attention="eager"))
    assert "attn_implementation='eager'" in script
    assert "fused=True)" in script
    assert "enable_flash_sdp" not in script


@pytest.mark.filterwarnings("ignore:.*(gradient|activation)_checkpointing:FutureWarning")
@pytest.mark.filterwarnings("ignore:This implementation of AdamW is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("method", "update", "words"),
    [
        ("adamw", "whole", {"checkpointing": "full"}),
        ("adamw-8bit", "whole", {"batch": None, "global_batch": 4}),
        ("adafactor", "whole", {"precision": "amp-bf16"}),
        ("qlora", "whole", {"precision": "amp-bf16", "checkpointing": "full"}),
        ("galore-adamw", "whole", {"rank": 8}),
        ("galore-adamw-8bit", "per-layer", {"rank": 8}),
    ],
    ids=lambda value: str(value),
)
def test_the_arguments_are_transformers(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    update: str,
    words: dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    text = training_arguments(found(folder, method, update, trainer=True, **words))
    names: dict[str, Any] = {}
    on_cpu = text.replace("output_dir=", "use_cpu=True, output_dir=")
    exec(compile(on_cpu, "arguments.py", "exec"), names)
    arguments = names["arguments"]
    assert arguments.gradient_accumulation_steps * arguments.per_device_train_batch_size == words.get("global_batch", 2)
    assert arguments.bf16 == (words.get("precision") == "amp-bf16")
    if method.startswith("galore"):
        from transformers import LlamaForCausalLM, Trainer

        trainer = Trainer(model=LlamaForCausalLM.from_pretrained(folder), args=arguments)
        if method == "galore-adamw":  # the layer-wise one wants hooks on a device
            optimizer = trainer.create_optimizer()
            assert [group.get("rank") for group in optimizer.param_groups] == [None, 8]


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("adamw", {"data_parallel": 2}),
        ("adamw-8bit", {"update": "whole"}),
        ("adafactor", {"precision": "amp-bf16"}),
        ("galore-adamw-8bit", {"update": "per-layer"}),
        ("galore-adamw", {"update": "whole"}),
        ("lora", {"checkpointing": "full"}),
    ],
    ids=str,
)
def test_the_arguments_read_again_are_the_run_that_was_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, words: dict[str, Any]
) -> None:
    import json

    from galore_mem.answers.plan import plan

    monkeypatch.chdir(tmp_path)
    wishes = Wishes(methods=(method,), trainer=True, batch=4, **words)
    planned = fit("llama-60m", gpus="3060", wishes=wishes).best.recommended
    assert planned is not None
    names: dict[str, Any] = {}
    text = training_arguments(fit("llama-60m", gpus="3060", wishes=wishes)).replace(
        "output_dir=", "use_cpu=True, output_dir="
    )
    exec(compile(text, "arguments.py", "exec"), names)
    content = names["arguments"].to_dict() | {"model_name_or_path": "llama-60m", "max_length": 256, "packing": True}
    content["dtype"] = "float32" if wishes.precision.startswith("amp") else "bfloat16"
    if method == "lora":
        content |= {"use_peft": True, "lora_r": 16, "lora_target_modules": "all-linear"}
    (tmp_path / "run.json").write_text(json.dumps(content, default=str), encoding="utf-8")
    read = plan(from_file="run.json", gpus="3060", data_parallel=wishes.data_parallel, exact=True).plans[0]
    assert read.footprint.moments == planned.footprint.moments
    assert read.footprint.upper_bytes == planned.footprint.upper_bytes


@pytest.mark.parametrize(
    ("name", "class_name", "task"),
    [
        ("bert-base", "AutoModelForSequenceClassification", "SEQ_CLS"),
        ("t5-base", "AutoModelForSeq2SeqLM", "SEQ_2_SEQ_LM"),
        ("gpt2", "AutoModelForCausalLM", "CAUSAL_LM"),
    ],
)
def test_the_script_loads_the_head_that_is_planned(name: str, class_name: str, task: str) -> None:
    script = python_script(fit(name, gpus="3060", methods=("lora",)))
    assert f"model = {class_name}.from_pretrained(" in script
    assert f"import {class_name}\n" in script
    assert f'task_type="{task}"' in script
    assert ("model.config.num_labels" in script) == (name == "bert-base")
    assert f"# Load the model as {class_name} " in training_arguments(
        fit(name, gpus="3060", wishes=Wishes(methods=("lora",), trainer=True))
    )


def test_a_script_for_an_encoder_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=64)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "tiny")
    script = tmp_path / "run.py"
    script.write_text(python_script(found(tmp_path / "tiny", "adamw")), encoding="utf-8")
    monkeypatch.setattr("sys.argv", [str(script), str(tmp_path / "tiny"), "--steps", "1"])
    model = runpy.run_path(str(script), run_name="__main__")["model"]
    assert type(model).__name__ == "BertForSequenceClassification"


def test_a_hostile_name_cannot_leave_the_docstring(folder: Path) -> None:
    result = found(folder, "adamw")
    from dataclasses import replace

    hostile = replace(result.model.shape, name='x"""\nimport os; os.abort()\n"""')
    script = python_script(replace(result, model=replace(result.model, shape=hostile)))
    assert '"""\nimport os' not in script
    compile(script, "run.py", "exec")


@pytest.mark.parametrize(
    ("method", "update", "said"),
    [("relora", "whole", "no library"), ("low-rank", "whole", "no library")],
)
def test_what_has_no_script_is_refused(folder: Path, method: str, update: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        python_script(found(folder, method, update))


def test_where_nothing_fits_nothing_is_written() -> None:
    with pytest.raises(UsageError, match="nothing fits"):
        python_script(fit("llama-2-70b", gpus="4090"))
    with pytest.raises(UsageError, match="no per-layer adamw"):
        training_arguments(fit("llama-60m", gpus="4090", methods=("adamw",), update="per-layer"))
    with pytest.raises(UsageError, match="no relora"):
        training_arguments(fit("llama-60m", gpus="4090", methods=("relora",)))


def test_several_gpus_are_started_by_torchrun() -> None:
    wishes = Wishes(data_parallel=2, global_batch=32, trainer=True, methods=("adamw",))
    text = training_arguments(fit("llama-60m", gpus="3060", wishes=wishes))
    assert "# Start the script with torchrun --nproc_per_node 2." in text
    found = {
        key: int(re.findall(rf"{key}=(\d+)", text)[0])
        for key in ("per_device_train_batch_size", "gradient_accumulation_steps")
    }
    assert found["per_device_train_batch_size"] * found["gradient_accumulation_steps"] * 2 == 32
