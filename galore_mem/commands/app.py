"""The command line: every command by name, imported when it is called."""

from collections.abc import Sequence

from cyclopts import App, Group, Parameter

from galore_mem import __version__

ASK = Group("Questions", sort_key=0)
LOOK_UP = Group("Catalogue", sort_key=1)

COMMANDS: tuple[tuple[str, Group, str], ...] = (
    ("plan", ASK, "Will this training run fit on that GPU, and what would make it fit?"),
    ("replay", ASK, "Run a recorded GPU memory history again, under other settings or on another card."),
    ("gpus", LOOK_UP, "List the GPUs, with what torch can use of each."),
    ("models", LOOK_UP, "List the models, with their parameters and other names."),
    ("methods", LOOK_UP, "List the training methods."),
)
"""Name, group and one-line help. The command `x` is the function `x` of `galore_mem.commands.x`."""


def build() -> App:
    """The application, without any command's module imported."""
    app = App(
        name="galore-mem",
        version=f"galore-mem {__version__}",
        help="Will this training run fit on that GPU, why, and what would make it fit?",
        help_epilogue="Exit codes: 0 answered, 1 --check or --budget says no, 2 bad input, 3 no usable GPU, "
        "4 network, 130 interrupted. Add --debug for the traceback of an error.",
        default_parameter=Parameter(negative=(), consume_multiple=(1, 1000)),
        result_action="return_value",
    )
    app["--help"].group = app["--version"].group = Group("Options", sort_key=2)
    for name, group, summary in COMMANDS:
        app.command(f"galore_mem.commands.{name}:{name}", name=name, group=group, help=summary)
    return app


def call(tokens: Sequence[str]) -> int:
    """Run one command line and return its exit code.

    Raises:
        CycloptsError: the words do not parse.
        InputError, GaloreMemError: the question cannot be answered.
    """
    result = build()(list(tokens), exit_on_error=False, print_error=False)
    return result if isinstance(result, int) else 0
