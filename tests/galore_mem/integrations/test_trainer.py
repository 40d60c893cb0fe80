"""The callback and the optimizer inside real training runs: Trainer, SFTTrainer, accelerate launch."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from galore_mem.answers.report.run import run_report
from galore_mem.errors import UsageError
from galore_mem.tapes.recording import read_recording
from galore_mem.tapes.tape import Tape

pytest.importorskip("transformers")

from galore_mem.integrations import GaLoreMem, trainer_optimizer
from galore_mem.optim import GaLoreAdamW

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = Path(__file__).with_name("train.py")
THEIRS = 'raise RuntimeError("a module of theirs was imported")\n'


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The training script as a module."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("their_training", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(folder: Path, **more: Any) -> Any:  # noqa: ANN401
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        learning_rate=0.01,
        lr_scheduler_type="constant",
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        **{"max_steps": 6, "use_cpu": True, **more},
    )


def recipe(optim: str) -> dict[str, Any]:
    return {
        "optim": optim,
        "optim_target_modules": ["attn", "mlp"],
        "optim_args": "rank=8, update_proj_gap=3, scale=0.25",
    }


def losses(script: ModuleType, args: Any, *, ours: bool, callbacks: Any = ()) -> list[float]:  # noqa: ANN401
    import torch
    from transformers import LlamaForCausalLM, Trainer

    torch.manual_seed(0)
    model = LlamaForCausalLM(script.CONFIG)
    chosen = {"optimizer_cls_and_kwargs": trainer_optimizer(model, args)} if ours else {}
    trainer = Trainer(model, args, train_dataset=script.Rows(), callbacks=list(callbacks), **chosen)
    trainer.train()
    return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


def test_accelerate_launch_among_modules_of_the_same_names(tmp_path: Path) -> None:
    shutil.copy(SCRIPT, tmp_path / "train.py")
    (tmp_path / "estimators.py").write_text(THEIRS)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "__init__.py").write_text(THEIRS)
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    done = subprocess.run(
        [sys.executable, *launch, "train.py", "galore_adamw_8bit_layerwise"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "trained with LayerwiseGaLoreAdamW8bit" in done.stdout
    assert "galore-mem wrote out.html" in done.stderr
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "Fits on RTX 4060" in page
    assert "train.py galore_adamw_8bit_layerwise" in page
    run = run_report(read_recording(tmp_path / "run.tape.json.gz"), "run")
    assert [span.name for span in run.iterations] == ["first", "steady", "steady"]
    assert {moment.name for moment in run.moments} >= {
        "forward_end",
        "loss",
        "backward_start",
        "layer_update",
        "refresh",
    }
    steady = next(moment for moment in run.moments if moment.label == "steady step")
    # 14 matrices of two layers: q, k, v, o 32x32 and gate, up, down 88x32, rank 8: projectors 8 x 32 floats each
    assert steady.by_category["projectors"] == 14 * 8 * 32 * 4
    assert "gradients" not in steady.by_category
    assert len(run.steps) == 3


# galore_torch's own AdamW deprecates itself
@pytest.mark.filterwarnings("ignore:This implementation of AdamW is deprecated:FutureWarning")
@pytest.mark.parametrize("optim", ["galore_adamw", "galore_adamw_layerwise"])
def test_our_optimizer_learns_as_galore_torch_does_from_the_same_arguments(
    script: ModuleType, tmp_path: Path, optim: str
) -> None:
    pytest.importorskip("galore_torch")
    args = arguments(tmp_path, **recipe(optim))
    theirs = losses(script, args, ours=False)
    ours = losses(script, args, ours=True)
    assert theirs[-1] < 0.9 * theirs[0]
    assert ours == pytest.approx(theirs, rel=0.005)


def test_recording_changes_nothing_and_knows_every_byte_of_the_model(script: ModuleType, tmp_path: Path) -> None:
    args = arguments(tmp_path, gradient_accumulation_steps=2, max_steps=3)
    plain = losses(script, args, ours=False)
    tape = tmp_path / "run.tape.json.gz"
    assert losses(script, args, ours=False, callbacks=[GaLoreMem(tape=tape, steps=2)]) == plain
    run = run_report(read_recording(tape), "run")
    from transformers import LlamaForCausalLM

    parameters = [p.numel() * p.element_size() for p in LlamaForCausalLM(script.CONFIG).parameters()]
    rounded = sum(-(-nbytes // 512) * 512 for nbytes in parameters)
    step = next(moment for moment in run.moments if moment.label == "steady step")
    assert step.by_category["weights"] == rounded
    assert step.by_category["gradients"] == rounded
    assert step.by_category["optimizer_states"] == 2 * rounded
    assert [phase.name for phase in run.phases].count("forward") == 4  # two steps of two micro-batches
    assert run.metadata["trainer"]["gradient_accumulation_steps"] == 2


def test_the_way_on_a_gpu(
    script: ModuleType, tmp_path: Path, fake_gpu: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the device's own calls: stamps, the snapshot that the allocator would write, its attribution."""
    from galore_mem.integrations.watching import GpuWatch

    fake_gpu()
    monkeypatch.setattr("galore_mem.integrations.callback.watch_of", GpuWatch)
    tape = tmp_path / "run.tape.json.gz"
    losses(script, arguments(tmp_path, **recipe("galore_adamw")), ours=True, callbacks=[GaLoreMem(tape=tape)])
    recorded = read_recording(tape)
    assert recorded.source == "measured"
    assert recorded.metadata["environment"]["gpu"] == "a fake"
    run = run_report(recorded, "run")
    assert [span.name for span in run.iterations] == ["first", "steady", "steady"]
    step = next(moment for moment in run.moments if moment.label == "steady step")
    assert step.by_category["projectors"] == 14 * 8 * 32 * 4
    assert {moment.name for moment in run.moments} >= {"forward_end", "backward_start", "step"}
    assert len(run.steps) == 3


@pytest.mark.gpu
def test_on_a_real_gpu(script: ModuleType, tmp_path: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    tape = tmp_path / "run.tape.json.gz"
    args = arguments(tmp_path, use_cpu=False, **recipe("galore_adamw_8bit_layerwise"))
    assert losses(script, args, ours=True, callbacks=[GaLoreMem(tape=tape)])
    recorded = read_recording(tape)
    assert recorded.source == "measured"
    run = run_report(recorded, "run")
    assert run.replay.first_difference is None
    assert len(run.iterations) == 3
    assert run.alive.by_category.get("unattributed", 0) < 0.05 * run.figures.live_bytes


def test_a_run_that_is_shorter_than_the_recording_is_kept(script: ModuleType, tmp_path: Path) -> None:
    tape = tmp_path / "run.tape.json.gz"
    losses(script, arguments(tmp_path, max_steps=1), ours=False, callbacks=[GaLoreMem(tape=tape, steps=5)])
    assert len(run_report(read_recording(tape), "run").iterations) == 1


# transformers deprecates an argument that TRL's configuration still sets
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing.*` is deprecated:FutureWarning")
def test_sft_trainer_unchanged(script: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="no trl: pip install 'galore-mem[test]'")
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    words = {f"w{number}": number for number in range(94)} | {"<pad>": 94, "</s>": 95}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="w0")), pad_token="<pad>", eos_token="</s>"
    )
    rows = Dataset.from_list([{"input_ids": [(3 * t + i) % 94 for t in range(24)]} for i in range(32)])
    torch.manual_seed(0)
    model = LlamaForCausalLM(script.CONFIG)
    args = SFTConfig(
        output_dir=str(tmp_path),
        max_steps=3,
        per_device_train_batch_size=4,
        learning_rate=0.01,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        max_length=24,
        disable_tqdm=True,
        **recipe("galore_adamw_8bit"),
    )
    page, tape = tmp_path / "out.html", tmp_path / "run.tape.json.gz"
    trainer = SFTTrainer(
        model,
        args=args,
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[GaLoreMem(report=page, tape=tape)],
        optimizer_cls_and_kwargs=trainer_optimizer(model, args),
    )
    trainer.train()
    assert page.read_bytes().startswith(b"<!doctype html>")
    recorded = read_recording(tape)
    run = run_report(recorded, "run")
    assert run.moments
    assert recorded.metadata["environment"]["trl"]
    assert next(m for m in run.moments if m.label == "steady step").by_category["projectors"] == 14 * 8 * 32 * 4


def test_what_the_callback_refuses(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to write"):
        GaLoreMem()
    with pytest.raises(UsageError, match="records nothing"):
        GaLoreMem(report=tmp_path / "out.html", steps=0)
    (tmp_path / "out.html").touch()
    with pytest.raises(UsageError, match="force=True"):
        GaLoreMem(report=tmp_path / "out.html")
    with pytest.raises(UsageError, match="no folder"):
        GaLoreMem(tape=tmp_path / "nowhere" / "run.tape.json.gz")


def test_a_page_that_cannot_be_drawn_leaves_the_training_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    callback = GaLoreMem(report=tmp_path / "out.html")
    callback._write(Tape(devices=()))
    assert "could not draw" in caplog.text
    assert "no device" in caplog.text


def test_what_the_optimizer_refuses(script: ModuleType, tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM(script.CONFIG)
    args = arguments(tmp_path)
    with pytest.raises(UsageError, match="no GaLore optimizer"):
        trainer_optimizer(model, args)
    with pytest.raises(UsageError, match="names 'rnk'"):
        trainer_optimizer(model, arguments(tmp_path, optim="galore_adamw", optim_args="rnk=8"))
    with pytest.raises(UsageError, match="is no number"):
        trainer_optimizer(model, arguments(tmp_path, optim="galore_adamw", optim_args="rank=eight"))
    with pytest.raises(UsageError, match="cannot accumulate"):
        trainer_optimizer(model, arguments(tmp_path, optim="galore_adamw_layerwise", gradient_accumulation_steps=2))
    with pytest.raises(UsageError, match="layer-wise"):
        trainer_optimizer(model, args, optim="galore_adamw", max_norm=1.0)


def test_optimizers_of_ones_own_work_too(script: ModuleType, tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM, Trainer

    from galore_mem.optim import galore_param_groups

    model = LlamaForCausalLM(script.CONFIG)
    optimizer = GaLoreAdamW(galore_param_groups(model, rank=8), lr=0.01)
    trainer = Trainer(
        model, arguments(tmp_path, max_steps=2), train_dataset=script.Rows(), optimizers=(optimizer, None)
    )
    trainer.train()
    assert optimizer.state
