"""Configurations of other tools: files like those in their documentation, what they mean, and what they cannot mean.

The expectations follow the tools' own sources: transformers 5.23 (training_args.py, trainer_optimizer.py), axolotl's
schemas and LLaMA-Factory's hparams, adapter.py and trainer_utils.py.
"""

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galore_mem.__main__ import main
from galore_mem.answers.plan import plan
from galore_mem.answers.wishes import Wishes
from galore_mem.answers.written import axolotl, llama_factory, trainer
from galore_mem.answers.written.read import Reader, read_run
from galore_mem.errors import UsageError
from profiles.errors import InputError

FILES = Path(__file__).resolve().parents[2] / "fixtures" / "written"
EXPECTED: dict[str, tuple[str, str | None, str, dict[str, Any]]] = {
    "llama_factory_galore.yaml": (
        "LLaMA-Factory",
        "meta-llama/Llama-2-7b-hf",
        "galore-adamw",
        {
            "update": "per-layer",
            "implementation": "galore-torch",
            "rank": 256,
            "scale": 2.0,
            "target_modules": ("self_attn", "mlp"),
            "batch": 1,
            "seq": 1024,
            "precision": "bf16",
            "checkpointing": "full",
            "clip": False,
            "eval_batch": 8,
            "eval_keep": None,
        },
    ),
    "llama_factory_lora.yaml": (
        "LLaMA-Factory",
        "Qwen/Qwen2.5-7B",
        "lora",
        {
            "rank": 8,
            "target_modules": ("all-linear",),
            "batch": 2,
            "grad_accumulation": 8,
            "seq": 2048,
            "padding": True,
            "optimizer_kernel": "fused",
        },
    ),
    "llama_factory_full.json": (
        "LLaMA-Factory",
        "Qwen/Qwen3-0.6B",
        "adamw",
        {"precision": "amp-bf16", "checkpointing": "none", "attention": "flash", "padding": False},
    ),
    "axolotl_full.yml": (
        "axolotl",
        "meta-llama/Llama-2-7b-hf",
        "adamw-8bit",
        {
            "precision": "bf16",
            "seq": 4096,
            "grad_accumulation": 2,
            "attention": "flash",
            "checkpointing": "full",
            "eval_batch": 1,
        },
    ),
    "axolotl_lora.yml": (
        "axolotl",
        "meta-llama/Llama-2-7b-hf",
        "lora",
        {
            "rank": 32,
            "lora_dropout": 0.05,
            "optimizer_kernel": "foreach",
            "padding": True,
            "checkpointing": "none",
            "autocast": True,
        },
    ),
    "axolotl_galore.yml": (
        "axolotl",
        "meta-llama/Llama-2-7b-hf",
        "galore-adamw-8bit",
        {"update": "per-layer", "rank": 512, "implementation": "galore-torch", "target_modules": ("self_attn", "mlp")},
    ),
    "trainer_qlora.yaml": (
        "transformers",
        "mistralai/Mistral-7B-v0.1",
        "qlora",
        {"rank": 16, "adapter_dtype": "bf16", "bnb_4bit_use_double_quant": True, "autocast": False, "seq": 2048},
    ),
    "llama_factory_qlora.yaml": (
        "LLaMA-Factory",
        "meta-llama/Llama-2-7b-hf",
        "qlora",
        {"rank": 8, "adapter_dtype": None, "bnb_4bit_use_double_quant": False, "autocast": True, "precision": "bf16"},
    ),
    "axolotl_qlora.yml": (
        "axolotl",
        "meta-llama/Llama-2-7b-hf",
        "qlora",
        {"rank": 32, "adapter_dtype": None, "bnb_4bit_use_double_quant": True, "autocast": True, "lora_dropout": 0.05},
    ),
    "trainer_galore.json": (
        "transformers",
        "llama-1b",
        "galore-adamw",
        {
            "rank": 64,
            "update_proj_gap": 100,
            "scale": 0.1,
            "precision": "amp-bf16",
            "zero_grad": "end",
            "batch": 2,
            "clip": True,
        },
    ),
    "trainer_minimal.yaml": (
        "transformers",
        None,
        "adamw",
        {"batch": 8, "optimizer_kernel": "fused", "precision": "amp-fp16", "checkpointing": "none"},
    ),
}


def test_every_file_has_its_expectation() -> None:
    assert {path.name for path in FILES.iterdir()} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_files_are_read_as_their_tools_would_run_them(name: str) -> None:
    tool, model, method, words = EXPECTED[name]
    run = read_run(str(FILES / name))
    assert (run.tool, run.model, run.method) == (tool, model, method)
    assert {key: getattr(run.settings, key) for key in words} == words


@pytest.mark.parametrize("name", EXPECTED)
def test_every_key_mattered_or_was_ignored(name: str) -> None:
    from galore_mem.answers.written.document import read_document

    run = read_run(str(FILES / name))
    mattered = {meaning.key for meaning in run.meanings}
    assert not mattered & set(run.ignored)
    assert set(run.ignored) <= set(read_document(str(FILES / name)))
    for key in ("learning_rate", "output_dir", "datasets"):
        assert key not in mattered


@pytest.mark.parametrize("name", EXPECTED)
def test_no_option_is_said_twice(name: str) -> None:
    meanings = read_run(str(FILES / name)).meanings
    options = [word for meaning in meanings for word in meaning.effect.split() if word.startswith("--")]
    assert sorted(set(options)) == sorted(options)
    assert f"--method {EXPECTED[name][2]}" in " ".join(meaning.effect for meaning in meanings)


@pytest.mark.parametrize("name", [name for name, (_, model, _, _) in EXPECTED.items() if model])
def test_files_are_planned_like_the_options_they_stand_for(name: str) -> None:
    model, run = EXPECTED[name][1], read_run(str(FILES / name))
    found = plan(from_file=str(FILES / name), gpus="a100-80gb")
    same = plan(model, methods=run.method, settings=run.settings, gpus="a100-80gb")
    assert found.plans == same.plans
    assert found.to_dict()["from"]["tool"] == run.tool


def test_embeddings_keep_fp32_states_under_transformers_8bit_optimizer() -> None:
    found = plan(from_file=str(FILES / "axolotl_full.yml")).plans[0].footprint
    settings = replace(read_run(str(FILES / "axolotl_full.yml")).settings, embedding_optim_bits=None)
    same = plan("llama-7b", methods="adamw-8bit", settings=settings)
    more = found.resident_bytes["optimizer_states"] - same.plans[0].footprint.resident_bytes["optimizer_states"]
    embedding = 32000 * 4096
    assert more == (8 - 2) * embedding - 2 * 4 * embedding // 256


def test_what_is_stated_takes_the_place_of_the_file() -> None:
    file = str(FILES / "trainer_minimal.yaml")
    found = plan("llama-60m", from_file=file, batch=1, seq=64, methods="galore-adamw", rank=16)
    workload = found.plans[0].workload
    assert (workload.batch.micro_batch_size, workload.method.name, workload.method.rank) == (1, "galore-adamw", 16)
    assert workload.precision == "amp-fp16"
    assert found.written is not None
    effects = {meaning.key: meaning.effect for meaning in found.written.meanings}
    assert effects["per_device_train_batch_size"].endswith("(stated otherwise)")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, (None, None)),
        ({"per_device_eval_batch_size": 4}, (None, None)),
        ({"eval_strategy": "steps"}, (8, None)),
        ({"evaluation_strategy": "epoch", "per_device_eval_batch_size": 4}, (4, None)),
        ({"eval_strategy": "steps", "eval_accumulation_steps": 20}, (8, 20)),
        ({"eval_strategy": "steps", "eval_accumulation_steps": 20, "prediction_loss_only": True}, (8, None)),
    ],
)
def test_evaluation_as_the_trainer_runs_it(keys: dict[str, Any], words: tuple[int | None, int | None]) -> None:
    run = trainer.read({"output_dir": "out", "max_length": 64, **keys}, "run.json")
    assert (run.settings.eval_batch, run.settings.eval_keep) == words
    assert any("compute_metrics" in note for note in run.notes) == (words[0] is not None and words[1] is None)


@pytest.mark.parametrize(
    ("keys", "padded"),
    [
        ({"flash_attention": True}, False),
        ({"attn_implementation": "flash_attention_2"}, False),
        ({}, False),
        ({"sdp_attention": True}, True),
        ({"attn_implementation": "sdpa"}, True),
    ],
)
def test_packed_rows_have_a_mask_where_sdpa_is_named(keys: dict[str, Any], padded: bool) -> None:
    run = axolotl.read({"base_model": "llama-60m", "sample_packing": True, **keys}, "run.yml")
    assert run.settings.padding is padded


@pytest.mark.parametrize(
    ("keys", "padded"),
    [
        ({"neat_packing": True, "flash_attn": "fa2"}, False),
        ({"neat_packing": True}, True),
        ({"packing": True}, False),
        ({"stage": "pt"}, False),
    ],
)
def test_neatly_packed_rows_have_a_mask_without_flash_attention(keys: dict[str, Any], padded: bool) -> None:
    run = llama_factory.read({"finetuning_type": "full", "model_name_or_path": "llama-60m", **keys}, "run.yaml")
    assert run.settings.padding is padded


@pytest.mark.parametrize(
    ("value", "resume"), [("out/checkpoint-500", "cpu"), (True, "cpu"), (None, "none"), (False, "none")]
)
def test_a_run_that_goes_on(value: object, resume: str) -> None:
    keys = {"output_dir": "out", "max_length": 64, "optim": "paged_adamw_8bit", "resume_from_checkpoint": value}
    run = trainer.read(keys, "run.json")
    assert run.settings.resume == resume
    found = plan("llama-60m", methods=run.method, settings=run.settings)
    assert any("paged states as ordinary tensors" in note for note in found.notes) == (resume == "cpu")


def test_emptied_caches_stand_where_each_tool_calls_for_them() -> None:
    found = trainer.read({"output_dir": "out", "max_length": 64, "torch_empty_cache_steps": 4}, "run.json")
    assert found.settings.empty_cache == "backward"
    assert axolotl.read({"base_model": "llama-60m", "gc_steps": 10}, "run.yml").settings.empty_cache == "step"


def test_explain_takes_a_file_apart() -> None:
    from galore_mem.answers.explain import explain

    file = str(FILES / "axolotl_galore.yml")
    (planned,) = plan(from_file=file).plans
    found = explain(from_file=file)
    assert (found.workload, found.footprint) == (planned.workload, planned.footprint)
    assert found.to_dict()["from"]["tool"] == "axolotl"
    assert explain("llama-60m", from_file=file, method="lora").workload.method.name == "lora"


@pytest.mark.parametrize("name", [name for name, (_, model, _, _) in EXPECTED.items() if model])
def test_fit_keeps_what_a_run_is_given_and_looks_for_the_rest(name: str) -> None:
    from galore_mem.answers.fit import fit

    file = str(FILES / name)
    found, run = fit("llama-60m", gpus="4090", from_file=file), read_run(file)
    wishes = found.wishes
    assert wishes.global_batch == run.settings.batch * run.settings.grad_accumulation
    assert (wishes.seq, wishes.precision, wishes.padding) == (
        run.settings.seq,
        run.settings.precision,
        run.settings.padding,
    )
    assert (wishes.rank, wishes.checkpointing, wishes.loss) == (None, None, None)
    assert wishes.methods == ((*Wishes().methods_asked, "qlora") if run.method == "qlora" else ())
    assert found.written is not None
    effects = {meaning.key: meaning.effect for meaning in found.written.meanings}
    assert all("(free here)" in effect for effect in effects.values() if "--method" in effect or "--check" in effect)


def test_wishes_stand_above_the_file_and_objectives_free_what_they_look_for() -> None:
    from galore_mem.answers.written.constraints import constrained

    file = str(FILES / "axolotl_full.yml")
    run, model, wishes = constrained(file, None, Wishes(seq=128, methods=("adamw",)))
    assert (model, wishes.seq, wishes.methods) == ("meta-llama/Llama-2-7b-hf", 128, ("adamw",))
    assert {meaning.key: meaning.effect for meaning in run.meanings}["sequence_len"].endswith("(stated otherwise)")
    assert constrained(file, None, Wishes(objective="sequence"))[2].seq is None
    assert constrained(file, None, Wishes(objective="batch"))[2].global_batch is None
    with pytest.raises(UsageError, match="how long sequences are"):
        constrained(str(FILES / "trainer_minimal.yaml"), "llama-60m", Wishes())


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_trace_and_a_profile_run_what_a_file_says(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from galore_mem.answers.profile import profile
    from galore_mem.answers.trace import trace

    config = tmp_path / "tiny"
    config.mkdir()
    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape = {"model_type": "llama", "vocab_size": 300, "max_position_embeddings": 64, **sizes}
    (config / "config.json").write_text(json.dumps(shape), encoding="utf-8")
    file = tmp_path / "run.yaml"
    keys = "optim: sgd\nper_device_train_batch_size: 2\nblock_size: 32\ndtype: bfloat16\nmax_grad_norm: 0\n"
    file.write_text(f"output_dir: out\nmodel_name_or_path: {config}\n{keys}", encoding="utf-8")
    (planned,) = plan(from_file=str(file)).plans
    traced = trace(from_file=str(file))
    ran = profile(device="cpu", steps=2, from_file=str(file))
    assert traced.workload == ran.workload == planned.workload
    assert traced.footprint.peak_live_bytes == ran.footprint.peak_live_bytes
    for found in (traced, ran):
        assert found.to_dict()["from"]["mattered"]["block_size"]["effect"] == "--seq 32"


@pytest.mark.parametrize("command", ["plan", "trace", "explain", "profile", "fit"])
def test_a_question_without_a_model_says_what_to_type(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = ["--gpu", "4090"] if command == "fit" else []
    monkeypatch.setattr(sys, "argv", ["galore-mem", command, *gpu])
    assert main() == 2
    assert capsys.readouterr().err.startswith(f"error: MODEL is missing; type: galore-mem {command} ")


def test_an_error_is_explained_for_the_run_of_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = "CUDA out of memory. Tried to allocate 86.00 MiB. GPU 0 has a total capacity of 23.52 GiB of which 34.31 MiB "
    log += "is free. Of the allocated memory 22.89 GiB is allocated by PyTorch, and 91.00 MiB is reserved by PyTorch."
    file = str(FILES / "axolotl_galore.yml")
    monkeypatch.setattr(sys, "argv", ["galore-mem", "oom", log, "--from", file, "--json"])
    assert main() == 0
    assert json.loads(capsys.readouterr().out)["workload"]["method"]["name"] == "galore-adamw-8bit"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["is empty"]),
        ("- a\n- b\n", ["no mapping"]),
        ("a: [1, 2\n", ["not valid YAML", "line 2"]),
        ("a: !!python/object/apply:os.system ['true']\n", ["not valid YAML"]),
        ('{"a": 1,', ["not valid JSON", "column"]),
        ("colour: blue\n", ["is no training configuration"]),
        ("output_dir: out\n", ["names no model"]),
        ("output_dir: out\nmodel_name_or_path: llama-60m\n", ["how long sequences are", "--seq"]),
        ("base_model: llama-60m\noptimizer: lion_8bit\n", ["optimizer is lion_8bit", "plans cover"]),
        ("base_model: llama-60m\nadapter: llama-adapter\n", ["adapter is llama-adapter"]),
        ("base_model: llama-60m\nadapter: qlora\nlora_target_linear: true\n", ["load_in_4bit is missing"]),
        (
            "base_model: llama-60m\nadapter: qlora\nload_in_4bit: true\nlora_target_linear: true\nfloat32: true\n",
            ["adapter is qlora", "half precision"],
        ),
        ("base_model: llama-60m\nload_in_8bit: true\n", ["load_in_8bit is true", "quantised"]),
        ("output_dir: out\nload_in_4bit: true\nmax_length: 9\n", ["load_in_4bit is true", "use_peft"]),
        (
            "output_dir: out\nload_in_4bit: true\nmax_length: 9\nuse_peft: true\ndtype: float32\n",
            ["load_in_4bit is true", "half precision"],
        ),
        ("base_model: llama-60m\nload_in_4bit: true\n", ["load_in_4bit is true", "quantised"]),
        ("base_model: llama-60m\nrl: dpo\n", ["rl is dpo"]),
        ("base_model: llama-60m\nadapter: lora\nlora_r: 8\n", ["lora_target_modules is missing"]),
        ("base_model: llama-60m\nmicro_batch_size: many\n", ["micro_batch_size is many", "whole number"]),
        ("base_model: llama-60m\nsequence_len: 99999999999\n", ["sequence_len is 99999999999", "2147483647 at most"]),
        ("base_model: [llama-60m]\nmicro_batch_size: 1\n", ["base_model is llama-60m", "text, not a list"]),
        ("base_model: llama-60m\nval_set_size: some\n", ["val_set_size is some", "a number"]),
        ("base_model: llama-60m\nsequence_len: 0\n", ["sequence_len is 0"]),
        ("base_model: llama-60m\noptimizer: galore_adamw\n", ["optim_target_modules is missing"]),
        ("base_model: llama-60m\nflash_attention: perhaps\n", ["flash_attention is perhaps", "true or false"]),
        ("finetuning_type: full\nstage: dpo\n", ["stage is dpo"]),
        ("finetuning_type: freeze\n", ["finetuning_type is freeze"]),
        ("finetuning_type: lora\nquantization_bit: 8\n", ["quantization_bit is 8"]),
        ("finetuning_type: lora\nquantization_bit: 4\nquantization_method: hqq\n", ["quantization_bit is 4"]),
        ("finetuning_type: full\nquantization_bit: 4\n", ["quantization_bit is 4", "finetuning_type: lora"]),
        ("finetuning_type: full\nuse_apollo: true\n", ["use_apollo is true"]),
        ("finetuning_type: full\nuse_galore: true\noptim: sgd\n", ["with use_galore"]),
        (
            "finetuning_type: full\nuse_galore: true\ngalore_layerwise: true\ngradient_accumulation_steps: 4\n"
            "model_name_or_path: llama-60m\n",
            ["per-layer with --grad-accumulation 4 is impossible"],
        ),
    ],
)
def test_bad_files_are_one_line(
    content: str,
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / ("run.json" if content.startswith("{") else "run.yaml")
    file.write_text(content, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["galore-mem", "plan", "--from", str(file)])
    assert main() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    for word in words:
        assert word in err


def test_other_bad_files(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large.yaml").write_bytes(b"a: 1\n" * 300_000)
    for name, word in (
        ("binary.yaml", "UTF-8"),
        ("large.yaml", "1 MiB"),
        ("none.yaml", "No such file"),
        ("", "directory"),
    ):
        with pytest.raises(UsageError, match=word):
            read_run(str(tmp_path / name))


def test_a_slip_in_a_key_is_named() -> None:
    content = {"base_model": "llama-60m", "sequence_len": 64, "micro_batchsize": 4, "dataset_prepared_path": "x"}
    run = axolotl.read(content, "run.yml")
    assert run.notes[0] == "run.yml: micro_batchsize is no key that is read; micro_batch_size is"
    assert set(run.ignored) == {"micro_batchsize", "dataset_prepared_path"}
    assert not any("no key that is read" in note for note in axolotl.read(content | {"micro_batch_size": 2}, "x").notes)


def test_what_a_plan_cannot_follow_is_said() -> None:
    content = {
        "base_model": "llama-60m",
        "deepspeed": "zero2.json",
        "torch_compile": True,
        "liger_rms_norm": True,
        "optimizer": "paged_adamw_8bit",
    }
    notes = " ".join(axolotl.read(content, "run.yml").notes)
    for word in ("deepspeed", "torch_compile", "liger_rms_norm", "without flash attention"):
        assert word in notes


def test_all_linear_of_transformers_includes_the_output_head() -> None:
    content = {"optim": "galore_adamw", "optim_target_modules": "all-linear", "max_length": 8}
    run = trainer.read(content, "run.json")
    assert run.settings.target_modules == ("all-linear", "lm_head")
    assert run.settings.rank == 128


WORDS = ["adamw_torch", "galore_adamw_8bit", "all", "bf16", "lora", "full", "true", "auto"]
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 5000), st.floats(), st.text(max_size=8))
VALUES = st.one_of(
    SCALARS,
    st.sampled_from(WORDS),
    st.lists(st.text(max_size=5), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
MORE_KEYS = (
    "optimizer optim_args lora_r lora_rank lora_dropout lora_target_modules gradient_checkpointing flash_attention "
    "flash_attn torch_dtype deepspeed max_length galore_rank use_peft sequence_len learning_rate"
)
KEYS = sorted({*axolotl.SIGNS, *llama_factory.SIGNS, *trainer.SIGNS, *MORE_KEYS.split()})


@settings(max_examples=200)
@given(
    content=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=12),
    read=st.sampled_from([axolotl.read, llama_factory.read, trainer.read]),
)
def test_any_values_are_read_or_refused_in_one_line(content: dict[str, Any], read: Reader) -> None:
    with suppress(UsageError, InputError):
        json.dumps(read(content, "run.yml").to_dict())


def test_a_plan_without_a_file_reads_no_yaml() -> None:
    code = "import sys; from galore_mem.commands.app import call; call(['plan', 'llama-60m', '--json']); "
    code += (
        "sys.exit('yaml' in sys.modules or any(name.startswith('galore_mem.answers.written') for name in sys.modules))"
    )
    root = Path(__file__).resolve().parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=False).returncode == 0
