"""A run given as changes to another one: `--diff "--update per-layer --rank 128"`."""

import shlex
from dataclasses import fields, replace

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
    options = {f"--{field.name.replace('_', '-')}": (field.name, field.type) for field in fields(Settings)}
    try:
        found = read(shlex.split(text), options | {"--method": ("method", str)})
    except ValueError:
        found = None
    if found is None or found[0] or not found[1]:
        raise UsageError(
            f"--diff {text!r} cannot be read", "it takes options of a run", 'try --diff "--update per-layer --rank 128"'
        )
    named = found[1]
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
