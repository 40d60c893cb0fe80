"""A plain, correct command line bound to its function without importing the parser.

Importing cyclopts and assembling its arguments takes longer than a plan itself. This binder knows the same function
signatures and the same `Settings`, accepts only what cannot be understood in two ways, and leaves everything else, help
and errors included, to cyclopts. A test holds the two together: where this one binds, both bind alike.
"""

import re
from collections.abc import Callable, Container, Sequence
from dataclasses import fields
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from galore_mem.answers.settings import Settings

Bound = tuple[Callable[..., int | None], list[Any], dict[str, Any]]
_INTEGER = re.compile(r"0|[1-9]\d{0,17}", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}(\.\d{1,9})?", re.ASCII)


def bind(tokens: Sequence[str], commands: Container[str]) -> Bound | None:
    """Function and arguments that `tokens` mean; None where that needs the parser."""
    if not tokens or tokens[0] not in commands:
        return None
    name = tokens[0]
    function = getattr(import_module(f"galore_mem.commands.{name}"), name)
    hints = {key: hint for key, hint in function.__annotations__.items() if key != "return"}
    positional_names = function.__code__.co_varnames[: function.__code__.co_argcount]
    options = {_option(key): (key, hint) for key, hint in hints.items() if key not in positional_names}
    for key, hint in hints.items():
        if hint is Settings:
            options |= {_option(field.name): (field.name, field.type) for field in fields(Settings)}
            del options[_option(key)]
    found = read(tokens[1:], options)
    required = len(positional_names) - len(function.__defaults__ or ())
    if found is None or not required <= len(found[0]) <= len(positional_names):
        return None
    positional, named = found
    if set(hints) - set(positional_names) - set(function.__kwdefaults__ or ()) - set(named):
        return None  # an option that must be given is missing
    return function, positional, _with_settings(hints, named)


def _option(name: str) -> str:
    return f"--{name.rstrip('_').replace('_', '-')}"


def read(words: Sequence[str], options: dict[str, tuple[str, Any]]) -> tuple[list[Any], dict[str, Any]] | None:
    """Positional words, and values by name; None where that is not certain.

    Args:
        words: what follows the command.
        options: by spelling, the name and the type of each.
    """
    positional: list[Any] = []
    named: dict[str, Any] = {}
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        if not word.startswith("-"):
            positional.append(word)
            continue
        if word not in options:
            return None
        key, hint = options[word]
        taken = 0 if hint is bool else 1
        if _is_list(hint):
            taken = next((n for n, value in enumerate(words[place:]) if value.startswith("-")), len(words) - place)
        values = words[place : place + taken]
        place += taken
        value = True if hint is bool else _value(values, hint)
        if value is None or (key in named and not _is_list(hint)):
            return None
        named[key] = named.get(key, ()) + value if _is_list(hint) else value
    return positional, named


def _is_list(hint: Any) -> bool:  # noqa: ANN401
    return get_origin(_bare(hint)) is tuple


def _bare(hint: Any) -> Any:  # noqa: ANN401
    """`X` of `X | None`."""
    if isinstance(hint, UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not NoneType]
        return kinds[0] if len(kinds) == 1 else None
    return get_args(hint)[0] if get_origin(hint) is not None and NoneType in get_args(hint) else hint


def _value(words: Sequence[str], hint: Any) -> Any:  # noqa: ANN401
    """What `words` mean as a `hint`; None where that is not certain."""
    kind = _bare(hint)
    if not words or any(word.startswith("-") or not word for word in words):
        return None
    if get_origin(kind) is tuple:
        return tuple(words) if get_args(kind) == (str, ...) else None
    (word,) = words
    if kind is str:
        return word
    if get_origin(kind) is Literal:
        return word if word in get_args(kind) else None
    if kind is int and _INTEGER.fullmatch(word):
        return int(word)
    if kind is float and _NUMBER.fullmatch(word):
        return float(word)
    return None


def _with_settings(hints: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    """The fields of `Settings` among `named`, gathered into one."""
    for key, hint in hints.items():
        if hint is Settings:
            own = {field.name: named.pop(field.name) for field in fields(Settings) if field.name in named}
            return {**named, key: Settings(**own)} if own else named
    return named
