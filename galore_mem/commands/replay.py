"""`galore-mem replay`."""

from galore_mem import streams


def replay(file: str, /, *, alloc_conf: str | None = None, gpu: list[str] | None = None, json: bool = False) -> None:
    """Run a recorded GPU memory history through the allocator replica, and ask what other settings or cards would do.

    Args:
        file: A snapshot of torch.cuda.memory._dump_snapshot(), or a Tape. Nothing in it is ever executed.
        alloc_conf: Settings as in PYTORCH_CUDA_ALLOC_CONF; the recording's own unless given.
        gpu: A card to replay on, by name; may be repeated. Unless given: the one it ran out on, or one without end.
        json: One JSON object on stdout, sizes in bytes.
    """
    from galore_mem.answers.names import resolve_gpus
    from galore_mem.answers.replay import replay_tape
    from galore_mem.render.replay import print_replay, replay_dict
    from galore_mem.tapes.recording import read_recording

    gpus = resolve_gpus(gpu or [])
    answer = replay_tape(read_recording(file), alloc_conf=alloc_conf, gpus=gpus)
    if json:
        from galore_mem.render.documents import json_text

        streams.write(json_text(replay_dict(answer)))
    else:
        print_replay(answer)
