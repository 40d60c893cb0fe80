"""The command line: every command by name, imported when it is called."""

from collections.abc import Sequence

COMMANDS: dict[str, tuple[str, str]] = {
    "plan": ("Predict", "Will this training run fit on that GPU, and what would make it fit?"),
    "fit": ("Predict", "What would make it fit: the configuration to take on a card, and what just misses."),
    "explain": ("Predict", "Why a run takes what it takes: tensor by tensor, moment by moment, setting by setting."),
    "tui": ("Predict", "Explore: every configuration against every card, changed by keys and by the mouse."),
    "trace": (
        "Predict",
        "Run the real step on fake tensors: what a GPU would hold, without a GPU and without weights.",
    ),
    "profile": (
        "Measure",
        "Run the first training steps for real, on this machine's GPU or on CPU tensors: what did they hold?",
    ),
    "calibrate": ("Measure", "Measure what this machine's GPU takes for itself; plan and trace use it."),
    "validate": ("Measure", "How right are the predictions? Hold a matrix of workloads against this machine's GPU."),
    "replay": ("Recordings", "Run a recorded GPU memory history again, under other settings or on another card."),
    "report": (
        "Recordings",
        "Draw a recording as one HTML page: what holds memory, when, and because of which tensors.",
    ),
    "oom": ("Recordings", "Explain a CUDA out-of-memory error; given the run, name the tensor and the way out."),
    "gpus": ("Catalogue", "List the GPUs, with what torch can use of each."),
    "models": ("Catalogue", "List the models, with their parameters and other names."),
    "methods": ("Catalogue", "List the training methods."),
}
"""Panel of the help page and one-line summary. The command `x` is the function `x` of `galore_mem.commands.x`."""


def call(tokens: Sequence[str]) -> int:
    """Run one command line and return its exit code.

    Raises:
        CycloptsError: the words do not parse.
        InputError, GaloreMemError: the question cannot be answered.
    """
    from galore_mem.commands.quick import bind

    bound = bind(tokens, COMMANDS)
    if bound is None:
        from galore_mem.commands.parser import build

        result = build()(list(tokens), exit_on_error=False, print_error=False)
    else:
        function, positional, named = bound
        result = function(*positional, **named)
    return result if isinstance(result, int) else 0
