r"""A person's own rules for categories, from a small TOML file.

    [[rule]]
    category = "optimizer_states"
    operator = 'my_optimizer\.py'       # a regular expression, searched in the place or operator
    module = "encoder"                  # the same, in the module or call path
    tag = "shampoo"                     # the same, in the program's own tag
    at_least = "1MiB"                   # of the request
    at_most = 8519680

Every condition of a rule must hold; the first rule that matches decides.
"""

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from estimators.footprint import CATEGORIES
from galore_mem.answers.report.lives import Lives
from galore_mem.answers.sizes import size_bytes
from galore_mem.errors import UsageError

_TEXTS = ("operator", "module", "tag", "phase")
_KEYS = frozenset({"category", "at_least", "at_most", *_TEXTS})
_MOST_RULES = 200
_EXAMPLE = 'write [[rule]] with category = "activations" and operator = "my_layer"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule."""

    category: str
    texts: tuple[tuple[str, "re.Pattern[str]"], ...] = ()
    """(column, what must be found in it)."""
    at_least_bytes: int = 0
    at_most_bytes: int | None = None

    def matches(self, lives: Lives, number: int) -> bool:
        """Whether it decides about a block."""
        size = lives.nbytes[number]
        if size < self.at_least_bytes or (self.at_most_bytes is not None and size > self.at_most_bytes):
            return False
        return all(pattern.search(lives.text(column, number)) for column, pattern in self.texts)


def read_rules(path: str | os.PathLike[str]) -> tuple[Rule, ...]:
    """Read a file of rules.

    Raises:
        UsageError: it cannot be read, or says something that means nothing; one line that says what.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}", error.strerror or str(error), "name a TOML file of rules") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML", str(error), _EXAMPLE) from None
    entries = content.get("rule")
    if not isinstance(entries, list) or set(content) != {"rule"} or not entries:
        raise UsageError(f"{path} holds no rules", "", _EXAMPLE)
    if len(entries) > _MOST_RULES:
        raise UsageError(f"{path} holds {len(entries)} rules", f"the most is {_MOST_RULES}", "join some")
    return tuple(_rule(entry, f"rule {number} of {path}") for number, entry in enumerate(entries, 1))


def _rule(entry: Any, where: str) -> Rule:  # noqa: ANN401
    if not isinstance(entry, dict):
        raise UsageError(f"{where} is no table", "", _EXAMPLE)
    unknown = sorted(set(entry) - _KEYS)
    if unknown:
        raise UsageError(f"{where} has a key {unknown[0]!r}", "", f"use {', '.join(sorted(_KEYS))}")
    category = entry.get("category")
    if category not in CATEGORIES:
        raise UsageError(f"{where} has category {category!r}", "", f"choose {', '.join(CATEGORIES)}")
    if len(entry) == 1:
        raise UsageError(f"{where} matches everything", "it has no condition", _EXAMPLE)
    return Rule(
        category=category,
        texts=tuple((key, _pattern(entry[key], f"{key} of {where}")) for key in _TEXTS if key in entry),
        at_least_bytes=_size(entry["at_least"], f"at_least of {where}") if "at_least" in entry else 0,
        at_most_bytes=_size(entry["at_most"], f"at_most of {where}") if "at_most" in entry else None,
    )


def _pattern(value: Any, what: str) -> "re.Pattern[str]":  # noqa: ANN401
    try:
        return re.compile(value)
    except (re.error, TypeError, RecursionError, OverflowError) as error:
        raise UsageError(f"{what} is no regular expression", str(error), "quote special signs with \\\\") from None


def _size(value: Any, what: str) -> int:  # noqa: ANN401
    if isinstance(value, bool) or not isinstance(value, int | str) or (isinstance(value, int) and value < 0):
        raise UsageError(f"{what} is {value!r}", "", 'give bytes, or a text such as "16MiB"')
    return size_bytes(value, what)
