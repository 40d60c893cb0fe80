"""`galore-mem tui`."""

from galore_mem.errors import ExitCode


def tui(model: str = "", /, *, gpu: tuple[str, ...] = (), fresh: bool = False) -> int:
    """Explore: change a setting and see at once what it does to memory, on which card it fits, and why.

    Args:
        model: A name of `galore-mem models`, or a path; without it, the last session's, at first llama-7b.
        gpu: Names of `galore-mem gpus`, or local for the cards of this machine; the first is the selected one.
        fresh: Ignore what the last session left.
    """
    from galore_mem.tui.start import start

    start(model, gpu, fresh=fresh)
    return ExitCode.ANSWERED
