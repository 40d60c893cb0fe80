"""The commands as a cyclopts application: parsing, help pages and suggestions, from the functions' own signatures."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from types import FunctionType
from typing import Annotated, Any, get_args

from cyclopts import App, CoercionError, Group, Parameter, Token, UnknownOptionError, convert

from galore_mem import __version__
from galore_mem.answers.settings import Settings
from galore_mem.commands.app import COMMANDS

QUESTION = Group("What is asked", sort_key=0)
RUN = Group("The training run", sort_key=1)
OUTPUT = Group("The answer", sort_key=2)
ABOUT_THE_ANSWER = frozenset({"budget"})
"""Options of the last panel, beside flags."""
ABOUT_THE_RUN = frozenset({"no_checkpointing", "padding"})
"""Flags that are not of the last panel."""
QUOTED = frozenset({"diff"})
"""Options whose one value holds options itself."""
STREAMED = frozenset({"file"})
"""Words that may be a lone hyphen: what comes in on stdin."""


NOTHING_STATED = Settings()


def build() -> App:
    """The application, without any command's module imported."""
    app = App(
        name="galore-mem",
        version=f"galore-mem {__version__}",
        help="Will this training run fit on that GPU, why, and what would make it fit?",
        help_epilogue="Exit codes: 0 answered, 1 --check or --budget says no, 2 bad input, 3 no usable GPU, "
        "4 network, 70 a fault of galore-mem, 130 interrupted. Add --debug for the traceback of an error.",
        default_parameter=_defaults(),
        result_action="return_value",
    )
    names = dict.fromkeys(panel for panel, _ in COMMANDS.values())
    panels = {panel: Group(panel, sort_key=order) for order, panel in enumerate(names)}
    app["--help"].group = app["--version"].group = Group("Options", sort_key=len(COMMANDS))
    for name, (panel, summary) in COMMANDS.items():
        app.command(f"{__name__}:{name}", name=name, group=panels[panel], help=summary)
    return app


def options_of_a_run(words: Sequence[str]) -> dict[str, Any]:
    """The method and the settings that `words` give, by name; those alone that were given.

    Raises:
        CycloptsError: the words do not parse.
    """
    app = App(
        name="--diff", help_flags=(), version_flags=(), default_parameter=_defaults(), result_action="return_value"
    )
    app.default(_run)
    named: dict[str, Any] = app(list(words), exit_on_error=False, print_error=False)
    return named


def _run(
    *, method: str | None = None, settings: Annotated[Settings, Parameter(name="*")] = NOTHING_STATED
) -> dict[str, Any]:
    given = {name: getattr(settings, name) for name in settings.stated}
    return given | ({} if method is None else {"method": method})


def __getattr__(name: str) -> Callable[..., int | None]:
    """The command `name`, its parameters sorted into panels: what cyclopts imports when the command is called."""
    if name not in COMMANDS:
        raise AttributeError(name)
    function: FunctionType = getattr(import_module(f"galore_mem.commands.{name}"), name)
    copy = FunctionType(function.__code__, function.__globals__, name, function.__defaults__, function.__closure__)
    copy.__kwdefaults__, copy.__doc__ = function.__kwdefaults__, function.__doc__
    copy.__annotations__ = {key: _described(key, hint, name) for key, hint in function.__annotations__.items()}
    return copy


def _described(name: str, hint: Any, command: str) -> Any:  # noqa: ANN401
    if name == "return":
        return hint
    if hint is Settings:
        return Annotated[hint, Parameter(name="*", group=RUN)]
    if name == "output":
        return Annotated[hint, Parameter(name=("--output", "-o"), group=OUTPUT, show_default=False)]
    if (hint is bool and name not in ABOUT_THE_RUN) or name in ABOUT_THE_ANSWER:
        return Annotated[hint, Parameter(group=OUTPUT, show_default=False)]
    converter = partial(_file_or_stdin, command) if name in STREAMED else _converted
    hyphens = name in QUOTED | STREAMED
    parameter = Parameter(group=QUESTION, show_default=False, allow_leading_hyphen=hyphens, converter=converter)
    return Annotated[hint, parameter]


def _defaults() -> Parameter:
    return Parameter(negative=(), consume_multiple=(1, 1000), converter=_converted)


def _file_or_stdin(command: str, _: Any, tokens: Sequence[Token]) -> str:  # noqa: ANN401
    word = tokens[0].value
    if word.startswith("-") and word != "-":
        raise UnknownOptionError(token=tokens[0], argument_collection=build()[command].assemble_argument_collection())
    return word


def _converted(hint: Any, tokens: Sequence[Token]) -> Any:  # noqa: ANN401
    """As cyclopts converts, except that it would round 1.5 to 2: nobody asked to plan for that."""
    if int in (hint, *get_args(hint)) and "." in tokens[0].value:
        raise CoercionError(msg=f"{tokens[0].value} is no whole number.", token=tokens[0])
    return convert(hint, tokens)
