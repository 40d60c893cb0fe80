"""Out-of-memory errors: every wording torch has had, what they add up to, and what they cannot mean."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from galore_mem.__main__ import main
from galore_mem.answers.oom import explain_oom
from galore_mem.answers.oom_message import read_messages, size_text
from galore_mem.answers.oom_place import stage_of
from galore_mem.answers.settings import Settings
from galore_mem.errors import UsageError

MIB, GIB = 2**20, 2**30
TORCH_1_3 = (
    "RuntimeError: CUDA out of memory. Tried to allocate 512.00 MiB (GPU 1; 10.76 GiB total capacity; "
    "8.25 GiB already allocated; 300.00 MiB free; 1.50 GiB cached)"
)
TORCH_1_8 = (
    "RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 14.56 GiB total capacity; 7.00 GiB allowed; "
    "6.50 GiB already allocated; 6.25 GiB free; 6.98 GiB reserved in total by PyTorch)"
)
TORCH_2_0 = (
    "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.50 GiB (GPU 0; 23.52 GiB total capacity; "
    "19.00 GiB already allocated; 700.00 MiB free; 22.00 GiB reserved in total by PyTorch) If reserved memory is >> "
    "allocated memory try setting max_split_size_mb to avoid fragmentation.  See documentation for Memory Management "
    "and PYTORCH_CUDA_ALLOC_CONF"
)
TORCH_2_1 = (
    "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacty of 14.75 "
    "GiB of which 1.50 GiB is free. Process 414660 has 13.20 GiB memory in use. Of the allocated memory 11.00 GiB is "
    "allocated by PyTorch, and 1.75 GiB is reserved by PyTorch but unallocated. If reserved but unallocated memory is "
    "large try setting max_split_size_mb to avoid fragmentation."
)
TORCH_2_13 = (
    "[W801 09:08:57.499362929 CUDACachingAllocator.cpp:3933] memory allocation failed with OOM on device 2 while "
    "trying to allocate 580911104 bytes (free: 191430656, total: 42405855232).\n"
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 554.00 MiB. GPU 2 has a total capacity of 39.49 "
    "GiB of which 182.56 MiB is free. Process 77 has 4.00 GiB memory in use. Including non-PyTorch memory, this "
    "process has 35.25 GiB memory in use. 38.00 GiB allowed; Of the allocated memory 34.00 GiB is allocated by "
    "PyTorch, with 5.00 GiB allocated in private pools (e.g., CUDA Graphs), and 499.39 MiB is reserved by PyTorch but "
    "unallocated. If reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True"
)
NO_SHORTAGE = TORCH_2_13.replace("554.00 MiB", "90.00 MiB").replace("38.00 GiB allowed; ", "")


@pytest.mark.parametrize(
    ("text", "wording", "device", "requested", "allocated", "unallocated", "free"),
    [
        (TORCH_1_3, "cached", 1, 512 * MIB, 8.25 * GIB, 1.5 * GIB, 300 * MIB),
        (TORCH_1_8, "reserved", 0, 20 * MIB, 6.5 * GIB, 0.48 * GIB, 6.25 * GIB),
        (TORCH_2_0, "reserved", 0, 1.5 * GIB, 19 * GIB, 3 * GIB, 700 * MIB),
        (TORCH_2_1, "sentences", 0, 2 * GIB, 11 * GIB, 1.75 * GIB, 1.5 * GIB),
        (TORCH_2_13, "sentences", 2, 554 * MIB, 34 * GIB, 499.39 * MIB, 182.56 * MIB),
    ],
)
def test_every_wording_is_read(
    text: str, wording: str, device: int, requested: float, allocated: float, unallocated: float, free: float
) -> None:
    (message,) = read_messages(text, "the text")
    assert (message.wording, message.device) == (wording, device)
    sizes = (message.requested, message.allocated, message.unallocated, message.free)
    for size, expected in zip(sizes, (requested, allocated, unallocated, free), strict=True):
        assert size is not None
        assert size.nbytes == pytest.approx(expected, abs=size.doubt_bytes or 1)


def test_the_warning_gives_exact_sizes() -> None:
    (message,) = read_messages(TORCH_2_13, "the text")
    assert message.exact_requested_bytes == 580911104
    assert message.exact_total_bytes == 42405855232
    alone = explain_oom(TORCH_2_13.split("\n")[0])
    assert alone.message.wording == "warning"
    assert alone.account.short_bytes == 580911104 - 191430656
    assert alone.cards[0].name == "A100 40GB SXM"


def test_wrapped_quoted_and_prefixed_lines_read_alike() -> None:
    (plain,) = read_messages(TORCH_2_1, "the text")
    words = TORCH_2_1.split()
    for prefix in ("[rank3]: ", "> ", "# ", "    "):
        wrapped = "\n".join(prefix + " ".join(words[n : n + 6]) for n in range(0, len(words), 6))
        (message,) = read_messages(wrapped, "the text")
        assert message == plain


def test_holders_sum_up_to_the_card() -> None:
    for text in (TORCH_1_3, TORCH_2_0, TORCH_2_1, TORCH_2_13):
        account = explain_oom(text).account
        assert sum(holder.nbytes for holder in account.holders) == pytest.approx(account.total_bytes, rel=0.002)


def test_in_a_container_the_process_is_found_by_what_it_holds() -> None:
    account = explain_oom(TORCH_2_1).account
    assert account.outside_bytes == pytest.approx(0.45 * GIB, rel=0.01)
    assert account.others_bytes == 0
    two = TORCH_2_1.replace(
        "Process 414660 has 13.20 GiB", "Process 9 has 13.10 GiB memory in use. Process 8 has 13.20 GiB"
    )
    unsure = explain_oom(two).account
    assert (unsure.outside_bytes, unsure.others_bytes) == (None, None)


def test_a_driver_that_cannot_tell_is_not_believed() -> None:
    account = explain_oom(TORCH_2_1.replace("13.20 GiB memory", "17179869184.00 GiB memory")).account
    assert account.outside_bytes is None
    assert account.rest_bytes == pytest.approx(0.5 * GIB, rel=0.01)


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        (TORCH_1_3, ("fragmentation", "run")),
        (TORCH_1_8, ("limit", "fragmentation")),
        (TORCH_2_0, ("fragmentation", "run")),
        (TORCH_2_13, ("others", "private-pools", "run")),
        (NO_SHORTAGE, ("fragmentation", "private-pools", "free-was-enough")),
        ("RuntimeError: CUDA error: out of memory", ("outside",)),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", ("outside",)),
    ],
)
def test_reasons(text: str, reasons: tuple[str, ...]) -> None:
    assert explain_oom(text).account.reasons == reasons


def test_the_last_error_of_a_log_counts() -> None:
    answer = explain_oom(f"step 3\n{TORCH_1_3}\nretrying with half the batch\n{TORCH_2_0}\n")
    assert (answer.messages, answer.message.wording) == (2, "reserved")
    assert answer.message.total is not None
    assert answer.message.total.text == "23.52 GiB"


@pytest.mark.parametrize(
    ("frames", "stage"),
    [
        (("train.py: main", "modeling_llama.py: forward", "linear.py: forward"), "forward"),
        (("train.py: main", "modeling_llama.py: forward", "loss/loss_utils.py: ForCausalLMLoss"), "loss"),
        (("torch/_tensor.py: backward", "utils/checkpoint.py: recompute_fn", "modeling_llama.py: forward"), "backward"),
        (("train.py: main", "torch/optim/adam.py: _multi_tensor_adam"), "step"),
        (("torch/_tensor.py: backward", "hooks.py: hook", "bitsandbytes/optim/optimizer.py: step"), "step"),
        (("train.py: main", "nn/modules/module.py: _apply", "nn/modules/module.py: convert"), "loading"),
        ((), None),
    ],
)
def test_tracebacks_tell_the_stage(frames: tuple[str, ...], stage: str | None) -> None:
    assert stage_of(frames) == stage


def test_tracebacks_of_python_and_ipython() -> None:
    python = (
        'Traceback (most recent call last):\n  File "/a/train.py", line 3, in <module>\n    loss.backward()\n'
        '  File "/b/torch/_tensor.py", line 648, in backward\n'
    )
    notebook = "File /b/torch/_tensor.py:648, in Tensor.backward(self, gradient)\n    639 \n"
    old_notebook = "/b/torch/_tensor.py in backward(self, gradient)\n"
    for before in (python, notebook, old_notebook):
        assert explain_oom(before + TORCH_2_1).stage == "backward"


def test_cards_are_found_by_their_memory() -> None:
    assert [gpu.name for gpu in explain_oom(TORCH_2_0).cards] == ["RTX 4090"]
    assert "T4" in {gpu.name for gpu in explain_oom(TORCH_2_1.replace("14.75", "14.56")).cards}
    assert explain_oom(TORCH_2_0.replace("23.52 GiB total", "17.17 GiB total")).cards == ()
    assert [gpu.name for gpu in explain_oom(TORCH_2_0, gpu="3090").cards] == ["RTX 3090"]


@pytest.mark.parametrize(
    ("total", "names"),
    [
        ("23.49", ["RTX 4090", "A30"]),
        ("21.98", ["A10", "A10G"]),
        ("21.96", ["L4"]),
        ("22.03", ["L4"]),
        ("15.61", ["RTX A4000"]),
        ("79.10", ["H100 80GB SXM"]),
    ],
)
def test_a_total_that_was_reported_names_its_cards(total: str, names: list[str]) -> None:
    """What newer drivers leave of a card is in its row, so that the message of today's driver is recognised."""
    found = [gpu.name for gpu in explain_oom(TORCH_2_0.replace("23.52 GiB total", f"{total} GiB total")).cards]
    assert found[: len(names)] == names


def test_a_run_gets_its_tensor_and_its_way_out() -> None:
    text = TORCH_2_0.replace("1.50 GiB (", "250.00 MiB (").replace("19.00 GiB already", "24.40 GiB already")
    answer = explain_oom(text, model="llama-7b", settings=Settings(seq=2048))
    assert answer.suspect is not None
    assert answer.suspect.birth.stage == "loss"
    assert answer.fit is not None
    assert answer.fit.usable_bytes == pytest.approx(23.52 * GIB, rel=1e-3)
    assert answer.ways
    for way in answer.ways:
        assert way.fit.verdict == "fits"
        assert len(way.changes) == len(way.costs)
    json.dumps(answer.to_dict())


def test_other_processes_count_against_the_run() -> None:
    beside = explain_oom(TORCH_2_13, model="llama-60m").fit
    assert beside is not None
    assert beside.usable_bytes == 42405855232 - 4 * GIB


def test_a_size_that_no_tensor_has_names_none() -> None:
    answer = explain_oom(TORCH_2_0.replace("1.50 GiB (", "777.00 MiB ("), model="llama-7b")
    assert answer.suspects == ()
    assert answer.suspect is None


@pytest.mark.parametrize("nbytes", [0, 1024, 1025, MIB, MIB + 1, GIB, GIB + 1, 580911104])
def test_sizes_are_printed_as_torch_prints_them(nbytes: int) -> None:
    number, unit = size_text(nbytes).split()
    limits = {"bytes": (0, 1024), "KiB": (1025, MIB), "MiB": (MIB + 1, GIB), "GiB": (GIB + 1, 2**63)}
    assert limits[unit][0] <= nbytes <= limits[unit][1]
    assert unit == "bytes" or number == f"{nbytes / {'KiB': 1024, 'MiB': MIB, 'GiB': GIB}[unit]:.2f}"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("oom no-such-file.log", ["cannot read", "No such file"]),
        ("oom .", ["cannot read", "directory"]),
        ("oom LOG", ["holds no CUDA out-of-memory error", "paste the whole message"]),
        ("oom EMPTY", ["is empty"]),
        ("oom MPS", ["out-of-memory error of MPS"]),
        ("oom LOG --seq 512", ["without its model"]),
        ("oom LOG llama-7b --method adamw sgd", ["name one --method"]),
        ("oom --jsn", ["Unknown option: --jsn", "Did you mean --json"]),
        ("oom OOM llama-8b", ["unknown model"]),
        ("oom OOM llama-7b --gpu 4091", ["unknown GPU"]),
        ("oom OOM llama-7b --rank 8", ["--rank means nothing to adamw"]),
    ],
)
def test_bad_input_is_one_line(
    line: str,
    words: list[str],
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    contents = {"LOG": "all went well\n", "EMPTY": " \n", "OOM": TORCH_2_0, "MPS": "MPS backend out of memory (MPS a"}
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")
    words_of_line = [str(folder / word) if word in contents else word for word in line.split()]
    monkeypatch.setattr(sys, "argv", ["galore-mem", *words_of_line])
    assert main() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    "text",
    [
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "ncclUnhandledCudaError: Cuda failure 2 'out of memory'",
        TORCH_2_0,
    ],
)
def test_every_wording_may_stand_on_the_command_line_itself(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["galore-mem", "oom", text])
    assert main() == 0
    assert "Name the run" in capsys.readouterr().out


def test_a_file_named_after_its_error_is_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "out of memory.log"
    log.write_text(TORCH_2_0, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["galore-mem", "oom", str(log)])
    assert main() == 0
    assert "was asked for" in capsys.readouterr().out


def test_expandable_segments_are_no_promise_on_cards_of_amd(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "torch.OutOfMemoryError: {} out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of "
        "191.98 GiB of which 1.50 GiB is free. Of the allocated memory 180.11 GiB is allocated by PyTorch, and "
        "8.01 GiB is reserved by PyTorch but unallocated."
    )
    monkeypatch.setattr(sys, "argv", ["galore-mem", "oom", text.format("HIP")])
    assert main() == 0
    assert "with torch 2.12 and ROCm 7 or later" in " ".join(capsys.readouterr().out.split())
    monkeypatch.setattr(sys, "argv", ["galore-mem", "oom", text.format("CUDA").replace("191.98", "23.52")])
    assert main() == 0
    assert "pieces grow together, at no cost." in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("line", ["oom -", "oom - llama-7b --seq 512", "oom --json -", "oom"])
def test_a_piped_error_is_read(line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TORCH_2_13.encode())))
    monkeypatch.setattr(sys, "argv", ["galore-mem", *line.split()])
    assert main() == 0
    assert "allocated" in capsys.readouterr().out


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("text", [TORCH_1_3, TORCH_1_8, TORCH_2_13, "CUDA error: out of memory"])
def test_the_answer_keeps_its_width(
    width: int, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys, "argv", ["galore-mem", "oom", text, *(["llama-7b"] if "GiB" in text else [])])
    assert main() == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width


def test_where_no_change_helps_a_larger_card_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["galore-mem", "oom", TORCH_2_13, "mixtral-8x7b", "--method", "lora"])
    assert main() == 0
    assert "The smallest desktop or server card with room for this run: --gpu h100-nvl." in " ".join(
        capsys.readouterr().out.split()
    )


def test_nothing_else_is_mistaken_for_an_error() -> None:
    with pytest.raises(UsageError):
        read_messages("Out of memory: Killed process 123 (python)", "the text")


def test_the_logits_that_an_evaluation_joins_are_named() -> None:
    from estimators.analytic.estimate import estimate
    from galore_mem.answers.settings import workloads
    from profiles.models import find_model

    settings = Settings(zero_grad="end", eval_batch=16, eval_keep=20)
    (workload,) = workloads(find_model("llama-60m").shape, ("adamw",), settings)
    joined = 20 * 16 * 256 * 32000 * 2
    before = estimate(workload).peak_live_bytes - joined
    text = (
        '  File "trainer.py", line 3015, in evaluation_loop\n  File "trainer_pt_utils.py", line 86, in '
        "torch_pad_and_concatenate\ntorch.OutOfMemoryError: CUDA out of memory. "
        f"Tried to allocate {joined / 2**30:.2f} GiB. "
        "GPU 0 has a total capacity of 11.65 GiB of which 1.00 GiB is free. Of the allocated memory "
        f"{before / 2**30:.2f} GiB is allocated by PyTorch, and 20.00 MiB is reserved by PyTorch but unallocated."
    )
    answer = explain_oom(text, name="log", model="llama-60m", method="adamw", gpu=None, settings=settings)
    assert answer.stage == "evaluation"
    assert answer.suspects[0].birth.name == "logits of 20 batches, joined"
    assert answer.suspects[0].distance_bytes < 0.01 * before


@pytest.mark.parametrize("words", [{}, {"zero_grad": "end", "precision": "amp-bf16"}, {"loss": "chunked", "seq": 2048}])
def test_tensors_of_an_evaluation_reach_its_moment(words: dict[str, Any]) -> None:
    from estimators.analytic.births import births_of
    from estimators.analytic.estimate import estimate
    from estimators.analytic.tensors import rounded
    from galore_mem.answers.settings import workloads
    from profiles.models import find_model

    (workload,) = workloads(find_model("llama-60m").shape, ("adamw",), Settings(**{"eval_batch": 4, **words}))
    moment = {moment.label: moment for moment in estimate(workload).moments}["steady evaluation"]
    made = [birth for birth in births_of(workload) if birth.stage == "evaluation"]
    assert max(birth.high_bytes + rounded(birth.nbytes) for birth in made) == moment.live_bytes
    assert {birth.first_layer for birth in made} == {None, *range(workload.model.num_hidden_layers)}
