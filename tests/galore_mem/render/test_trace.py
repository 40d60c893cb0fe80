"""What a trace looks like in a terminal."""

import pytest

pytest.importorskip("torch")


def test_peaks_are_named_as_torch_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    from galore_mem.answers.trace import trace
    from galore_mem.render.trace import print_trace

    print_trace(trace("llama-60m", gpus="4090", method="sgd", seq=8, checkpointing="full", clip=True))
    out = capsys.readouterr().out
    assert "flash attention, full checkpointing, clipped gradients. RTX 4090: fits" in " ".join(out.split())
    assert "torch.cuda.max_memory_allocated" in out
    assert "torch.cuda.max_memory_reserved" in out
    assert "largest tensors alive at the peak" in out
    assert all(len(line) <= 80 for line in out.splitlines())
