"""A run given as changes to another one: `--diff "--update per-layer --rank 128"`."""

import shlex
from dataclasses import fields, replace
from typing import Any

from galore_mem.answers.settings import OF_A_METHOD, Settings, means_something
from galore_mem.commands.quick import read
from galore_mem.errors import UsageError
from profiles.errors import InputError


def changed(text: str, method: str, settings: Settings) -> tuple[str, Settings]:
    """Method and settings of the other run.

    A setting that the other method has no use for is dropped where it was not asked for.

    Args:
        text: options as on the command line.
        method: the first run's.
        settings: the first run's.

    Raises:
        UsageError: the text is no list of options.
        InputError: a value that means nothing.
    """
    named = _read(text)
    name = named.pop("method", method)
    if name != method:
        from estimators.workload import method_traits

        kinds = [method_traits(one).parameterisation for one in (method, name)]
        of_another_kind = kinds[0] != kinds[1] and "rank" not in named
        left_out = [
            field
            for field in OF_A_METHOD
            if field not in named and (of_another_kind or not means_something(field, name))
        ]
        plain = Settings()
        settings = replace(settings, **{field: getattr(plain, field) for field in left_out})
    try:
        return name, replace(settings, **named)
    except TypeError as error:
        raise InputError(f"--diff {text!r} cannot be read", str(error), "") from None


def _read(text: str) -> dict[str, Any]:
    """What `text` sets, by the setting's name.

    Raises:
        UsageError: it is no list of options, or sets nothing.
    """
    options = {f"--{field.name.replace('_', '-')}": (field.name, field.type) for field in fields(Settings)}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise _unreadable(text, f"{error}".lower()) from None
    found = read(words, options | {"--method": ("method", str)})
    if found is None or found[0]:
        return _parsed(text, words)
    if not found[1]:
        raise _unreadable(text, "it names no option")
    return found[1]


def _parsed(text: str, words: list[str]) -> dict[str, Any]:
    """By the parser, which reads what can be written in several ways, and knows what is wrong with the rest."""
    from cyclopts import CycloptsError

    from galore_mem.commands.parser import options_of_a_run
    from galore_mem.commands.usage import what_is_wrong

    try:
        named = options_of_a_run(words)
    except CycloptsError as error:
        said = what_is_wrong(error).rstrip(" .")
        raise _unreadable(text, f"{said[:1].lower()}{said[1:]}") from None
    if not named:
        raise _unreadable(text, "it names no option")
    return named


def _unreadable(text: str, why: str) -> UsageError:
    return UsageError(
        f"--diff {text!r} cannot be read", why, 'it takes options of a run: --diff "--batch 4 --rank 128"'
    )
