"""`galore-mem plan`: exit codes, streams, and bad input of every kind in one line."""

import csv
import io
import json
import random
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from galore_mem.__main__ import main
from profiles.models import find_model

CONFIG = dict(find_model("llama-60m").config)


class Done(NamedTuple):
    """What a process leaves."""

    code: int
    out: str
    err: str


class Run:
    """The command line, in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys = capsys
        self.monkeypatch = monkeypatch
        monkeypatch.setenv("COLUMNS", "80")

    def __call__(self, line: str, *more: str) -> Done:
        self.monkeypatch.setattr(sys, "argv", ["galore-mem", *line.split(), *more])
        code = main()
        return Done(int(code), *self.capsys.readouterr())

    def refuses(self, line: str, *words: str) -> None:
        """The line is bad input: exit 2 and one line that holds `words`."""
        done = self(line)
        assert (done.code, done.out) == (2, ""), done
        assert done.err.startswith("error: ")
        assert done.err.count("\n") == 1
        assert "Traceback" not in done.err
        for word in words:
            assert word in done.err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(capsys, monkeypatch)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("plan", ["MODEL is missing"]),
        ("plan llama-8b", ["unknown model", "did you mean"]),
        ("plan llama-7b --gpu 4091", ["unknown GPU", "4090"]),
        ("plan llama-7b --method adamv", ["unknown method", "adamw"]),
        ("plan llama-7b --method AdamW8bit", ["unknown method", "adamw-8bit"]),
        ("plan llama-7b --method LORA", ["unknown method 'LORA'; try one of: lora\n"]),
        ("plan llama-7b --method GaLore_AdamW_8bit", ["try one of: galore-adamw-8bit\n"]),
        ("plan llama-7b --method galor", ["try one of: galore-adamw, galore-adamw-8bit, galore-adafactor\n"]),
        ("plan gpt2 --method qlora", ["qlora cannot be planned for gpt2", "Conv1D", "--method lora"]),
        ("plan llama-7b --method lora --bnb-4bit-use-double-quant", ["means nothing to lora", "--method qlora"]),
        ("plan llama-7b --method galore-adamw --rank 0", ["--rank 0"]),
        ("plan llama-7b --method galore-adamw --rank -8", ["--rank"]),
        ("plan llama-7b --method galore-adamw --rank x", ["--rank", "x"]),
        ("plan llama-7b --method adamw --rank 8", ["--rank means nothing to adamw"]),
        ("plan llama-7b --method lora --proj-type std", ["--proj-type means nothing to lora"]),
        ("plan llama-7b --method lora --implementation galore-torch", ["--implementation means nothing to lora"]),
        ("plan llama-7b --method galore-adamw --quant-blocksize 256", ["--quant-blocksize means nothing"]),
        ("plan llama-7b --seq 0", ["--seq 0"]),
        ("plan llama-7b --batch 0", ["--batch 0"]),
        ("plan llama-7b --batch 99999999999999999999", ["more than any run has", "give 2147483647 or less"]),
        ("plan llama-7b --seq 1.5", ["--seq", "1.5"]),
        ("plan llama-7b --update layerwise", ["--update", "whole", "per-layer"]),
        ("plan llama-7b --precision fp16", ["--precision", 'Did you mean "amp-fp16"']),
        ("plan llama-7b --dropout 2", ["--dropout 2"]),
        ("plan llama-7b --target-modules nothing --method lora", ["--target-modules nothing matches no"]),
        ("plan llama-7b --target-modules ( --method lora", ["no valid pattern"]),
        ("plan llama-7b --budget 22", ["--budget 22", "22GiB"]),
        ("plan llama-7b --other-use much --gpu 4090", ["--other-use much"]),
        ("plan llama-7b --other-use 30GiB --gpu 4060 4090", ["leaves nothing of RTX 4090", "30.00 of 23.48 GiB"]),
        ("plan llama-7b --json --csv", ["exclude each other"]),
        ("plan llama-7b --check", ["--gpu", "--budget"]),
        ("plan llama-7b --gpu", ["--gpu", "needs a value"]),
        ("plan llama-7b --sqe 5", ["--sqe", "Did you mean --seq"]),
        ("plan llama-7b --ddp 8", ["--ddp", "Did you mean --data-parallel?"]),
        ("plan llama-7b --load_in_4bit=true", ["--load_in_4bit", "Did you mean --method qlora?"]),
        ("plan llama-7b --fsdp", ["Sharded models are not planned", "--data-parallel"]),
        ("plan llama-7b --zero 3", ["--zero.", "Sharded models are not planned"]),
        ("plan llama-7b --torch_compile", ["torch.compile is not planned"]),
        ("plan llama-7b --gradient_checkpointing", ["Did you mean --checkpointing full?"]),
        ("plan llama-7b --gpu 8xh100", ["'8xh100' is several cards", "--gpu h100 --data-parallel 8"]),
        ("plan llama-7b --gpu 4090x", ["unknown GPU '4090x'"]),
        ("report nothing.json", ["--output is missing", "galore-mem report nothing.json -o page.html"]),
        ("gpus --ddp 8", ["--ddp", "galore-mem gpus --help"]),
        ("plan llama-7b --autocast --precision amp-bf16", ["leave it out", "use --precision bf16"]),
        ("plan llama-7b --resume gpu", ["--resume", 'Did you mean "device"']),
        ("plan llama-7b --alloc-conf expandable:True", ["expandable", "unknown key"]),
        ("plan llama-7b --attention flash --gpu v100-16gb", ["flash", "V100"]),
        ("plan llama-7b --attention flash --gpu t4 --precision amp-fp16", ["flash", "T4"]),
        ("plan llama-7b --attention flash --precision fp32 --gpu 4090", ["flash", "fp32"]),
        (
            "plan llama-7b --method galore-adamw --implementation galore-torch"
            " --update per-layer --grad-accumulation 2",
            ["--update per-layer with --grad-accumulation 2", "galore-mem"],
        ),
        ("plan deepseek-v2-lite", ["latent vectors", "run: galore-mem trace deepseek-v2-lite"]),
        ("plan 4090 --gpu llama-7b", ["'4090' is a GPU, where a model is asked for", "then --gpu 4090"]),
        ("plan llama-7b --gpu gpt2", ["'gpt2' is a model, where a GPU is asked for"]),
        ("plan llama-7b --gpu 4090,3090", ["put blanks between names: 4090 3090"]),
        ("plan llama-7b --method adamw,lora", ["put blanks between names: adamw lora"]),
        ("plan llama-7b 4090", ["'4090' is a GPU: did you mean --gpu 4090?"]),
        ("plan llama-7b gpt2", ["'gpt2' is a second model, where one is taken"]),
        ("explain llama-7b --gpu 4090 3090", ["'3090' is a second GPU, where one is taken"]),
        ("llama-7b --gpu 4090", ["'llama-7b' is a model, and no command", "galore-mem plan llama-7b"]),
        ("gpus 4090", ["Nothing takes '4090' here"]),
        ("replay", ["FILE is missing", "galore-mem replay snapshot.pickle"]),
        ("report", ["FILE is missing", "galore-mem report snapshot.pickle -o page.html"]),
        ("report x.pickle -o .", ["cannot write ./: it is a folder"]),
        ("plan llama-7b --method lora --target-modules=", ["--target-modules has an empty pattern"]),
        ("plan llama-7b --other-use 1GiB", ["--other-use has no card", "--gpu NAME"]),
        ("explain llama-7b --other-use 1GiB", ["--other-use has no card"]),
        ("trace llama-60m --other-use 1GiB", ["--other-use has no card"]),
        ("plan llama-7b --exact --batch 100000000", ["cannot be replayed"]),
        ("fit bert-base --gpu 4090 --loss chunked", ["--loss chunked cannot run here", "not made for bert"]),
        ("fit llama-7b --gpu 4090 --rank 64 --method adamw", ["--rank means nothing to adamw", "galore-adamw"]),
        ("fit llama-7b --gpu 4090 --min-rank 64 --method adamw sgd", ["--min-rank means nothing to adamw, sgd"]),
        ("plan nobody/nothing/at-all", ["org/name@revision"]),
        ("plan ./missing.json", ["no file"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_one_line(run: Run, line: str, words: list[str]) -> None:
    run.refuses(line, *words)


def test_a_configuration_in_the_place_of_a_model_is_told_where_it_goes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "train.yml").write_text("base_model: x\n", encoding="utf-8")
    run.refuses(f"plan {tmp_path / 'train.yml'}", "--from")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is empty"]),
        (b"{", ["not valid JSON"]),
        (json.dumps(CONFIG).encode()[:-40], ["not valid JSON"]),
        (random.Random(0).randbytes(4096), ["not"]),
        (b"[1, 2]", ["holds a list"]),
        (b"null", ["holds"]),
        (json.dumps(CONFIG | {"hidden_size": "512"}).encode(), ["hidden_size"]),
        (json.dumps(CONFIG | {"hidden_size": -1}).encode(), ["hidden_size"]),
        (json.dumps(CONFIG | {"num_hidden_layers": 2.5}).encode(), ["num_hidden_layers"]),
        (json.dumps({key: CONFIG[key] for key in CONFIG if key != "vocab_size"}).encode(), ["vocab_size"]),
        (json.dumps(CONFIG | {"model_type": "whisper"}).encode(), ["whisper"]),
        (b" " * (100 * 2**20), ["100 MiB"]),
    ],
    ids=["empty", "open", "cut", "binary", "list", "null", "text", "negative", "float", "missing", "family", "huge"],
)
def test_a_broken_config_is_one_line(run: Run, tmp_path: Path, content: bytes, words: list[str]) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    run.refuses(f"plan {path}", "config.json", *words)


def test_a_good_config_is_planned_by_path_and_by_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    by_file = run(f"plan {tmp_path / 'config.json'} --json")
    by_folder = run(f"plan {tmp_path} --json")
    assert by_file.code == by_folder.code == 0
    assert json.loads(by_file.out)["model"]["parameters"] == find_model("llama-60m").parameters
    assert json.loads(by_file.out)["plans"][0]["footprint"] == json.loads(by_folder.out)["plans"][0]["footprint"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("--gpu 4090", 0),
        ("--gpu 4090 --check", 1),
        ("--gpu h100 --method galore-adamw --check", 0),
        ("--gpu h100 4090 --method galore-adamw --check", 1),
        ("--method lora --budget 20GiB", 0),
        ("--method lora --budget 10GiB", 1),
        ("--method lora --gpu 4090 --check --budget 10GiB", 1),
        ("--method lora --gpu 4090 --check --other-use 20GiB", 1),
    ],
)
@pytest.mark.parametrize("form", ["", "--json", "--csv"])
def test_exit_codes_follow_check_and_budget_in_every_form(run: Run, options: str, code: int, form: str) -> None:
    done = run(f"plan llama-7b {options} {form}")
    assert (done.code, done.err) == (code, "")
    assert done.out


def test_a_local_card_without_a_driver_exits_with_3(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def fail() -> None:
        raise pynvml.NVMLError_LibraryNotFound

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    done = run("plan llama-7b --gpu local")
    assert (done.code, done.out) == (3, "")
    assert done.err.count("\n") == 1
    assert "driver" in done.err


def test_notes_go_to_stderr_and_leave_data_alone(run: Run) -> None:
    done = run("plan llama-7b --method galore-adamw --rank 5000 --seq 4096 --json")
    assert done.code == 0
    assert done.err.count("note: ") == 2
    assert len(json.loads(done.out)["notes"]) == 2


def test_csv_has_a_row_for_each_configuration_and_card(run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(run("plan llama-7b --gpu 4090 h100 --csv").out)))
    assert len(rows) == 12
    for row in rows:
        at_peak = sum(int(value) for name, value in row.items() if name.startswith("at_peak_"))
        assert at_peak == int(row["peak_live_bytes"])
        assert int(row["headroom_bytes"]) == int(row["usable_bytes"]) - int(row["upper_bytes"])


def test_json_equals_what_python_callers_get(run: Run) -> None:
    import galore_mem as gm

    found = json.loads(run("plan llama-7b --gpu 4090 --method lora --rank 8 --json").out)
    assert found == json.loads(json.dumps(gm.plan("llama-7b", gpus="4090", methods="lora", rank=8).to_dict()))


def test_a_budget_is_shown_as_a_verdict(run: Run) -> None:
    assert "over budget" in run("plan llama-7b --gpu 4090 --budget 20GiB").out
    assert "over budget" in run("plan llama-7b --method lora --budget 10GiB").out
    assert "over budget" not in run("plan llama-7b --method lora --budget 20GiB").out


def test_a_budget_below_the_card_is_what_the_advice_is_judged_by(run: Run) -> None:
    for more in ("", " --exact"):
        over = " ".join(run(f"plan llama-7b --gpu 4090 --method lora --budget 12GiB{more}").out.split())
        assert "lora r16 does not fit: it is " in over
        assert " GiB above the budget of 12.00 GiB at its upper bound. Cheapest way to fit: --method qlora" in over
        assert "It fits" not in over
    kept = " ".join(run("plan llama-7b --gpu 4090 --method lora --budget 20GiB").out.split())
    assert "It fits the budget of 20.00 GiB: lora r16 leaves 3." in kept
    ample = run("plan llama-7b --gpu 4090 --method lora --budget 30GiB").out
    assert "It fits: lora r16 leaves 6." in ample  # the card ends before the budget does


def test_beside_several_cards_the_rows_over_a_budget_are_named(run: Run) -> None:
    out = run("plan llama-7b --gpu 4090 5090 --method lora galore-adamw-8bit --budget 20GiB").out
    assert "Over the budget of 20.00 GiB at the upper bound: galore-adamw-8bit r1024." in " ".join(out.split())
    assert "budget" not in run("plan llama-7b --gpu 4090 5090 --method lora --budget 20GiB").out.partition("On RTX")[0]


def test_a_lead_too_small_to_print_is_not_called_nothing(run: Run) -> None:
    line = "plan qwen3-4b --gpu 3090 --method galore-adamw-8bit --update per-layer"
    assert "The steady backward start wins, less than 0.01 above the steady refresh." in run(line).out


def test_a_help_page_that_is_not_read_to_its_end_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    from galore_mem.outcomes import report

    monkeypatch.setattr("galore_mem.outcomes.silence", lambda: None)
    error = SystemExit(1)
    error.__context__ = BrokenPipeError()  # as rich leaves
    assert report(error) == 0
    assert report(SystemExit(1)) == 1


def test_replayed_rows_follow_the_allocators_settings_and_a_note_says_so(run: Run) -> None:
    line = "plan llama-60m --gpu 4090 --method adamw --alloc-conf expandable_segments:True"
    assert "a plan is for the allocator's default settings" in run(line).err
    assert "replayed under expandable_segments:True" in run(f"{line} --exact").err
