"""`galore-mem replay`."""

from galore_mem import streams
from galore_mem.errors import UsageError


def replay(
    file: str,
    /,
    *,
    alloc_conf: str | None = None,
    gpu: tuple[str, ...] = (),
    other_use: str | None = None,
    json: bool = False,
) -> None:
    """Run a recorded GPU memory history through the allocator replica, and ask what other settings or cards would do.

    Args:
        file: A snapshot of torch.cuda.memory._dump_snapshot(), or a Tape. Nothing in it is ever executed.
        alloc_conf: Settings as in PYTORCH_CUDA_ALLOC_CONF; the recording's own unless given.
        gpu: Cards to replay on, of `galore-mem gpus`, or local; unless given, the one it ran out on.
        other_use: What others take from each card, such as 800MiB.
        json: One JSON object on stdout, sizes in bytes.
    """
    from galore_mem.answers.names import resolve_cards
    from galore_mem.answers.replay import replay_tape
    from galore_mem.answers.sizes import size_bytes
    from galore_mem.render.replay import print_replay, replay_dict
    from galore_mem.tapes.recording import read_recording

    cards = resolve_cards(gpu, None if other_use is None else size_bytes(other_use, "--other-use"))
    tape = read_recording(file)
    if not tape.devices:
        raise UsageError(f"{file} holds no device with events or segments", "", "record a step and try again")
    answer = replay_tape(tape, alloc_conf=alloc_conf, cards=cards)
    if json:
        from galore_mem.render.documents import json_text

        streams.write(json_text(replay_dict(answer)))
    else:
        print_replay(answer)
