"""A YAML or JSON file as a mapping, without running anything in it."""

import json
import os
from typing import Any

from galore_mem.errors import MissingExtraError, UsageError

MOST_BYTES = 1 << 20
"""A training configuration has some KiB."""
_FIX = "give the JSON or YAML of transformers' TrainingArguments, of axolotl or of LLaMA-Factory"


def read_document(path: str) -> dict[str, Any]:
    """The mapping that a file holds, its keys as strings.

    Raises:
        UsageError: no such file, too large, no valid JSON or YAML, or no mapping.
    """
    text = _text(path)
    if not text.strip():
        raise UsageError(f"{path} is empty", "", _FIX)
    is_json = path.lower().endswith((".json", ".jsonc")) or text.lstrip()[:1] == "{"
    content = _from_json(text, path) if is_json else _from_yaml(text, path)
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no mapping of keys to values", "", _FIX)
    return {str(key): value for key, value in content.items()}


def _text(path: str) -> str:
    try:
        with open(os.path.expanduser(path), "rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read {path[:200]!r}", reason, _FIX) from None
    if len(data) > MOST_BYTES:
        raise UsageError(f"{path} has more than 1 MiB", "a training configuration has a few KiB", _FIX)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not text in UTF-8", "", _FIX) from None


def _from_json(text: str, path: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise UsageError(f"{path} is not valid JSON", reason, "correct it there") from None
    except (RecursionError, ValueError):
        raise UsageError(f"{path} cannot be read as JSON", "", _FIX) from None


def _from_yaml(text: str, path: str) -> object:
    try:
        import yaml
    except ImportError:
        raise MissingExtraError("reading YAML", "", "yaml") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = f"{getattr(error, 'problem', None) or 'it cannot be parsed'}{where}"
        raise UsageError(f"{path} is not valid YAML", reason, "correct it there") from None
    except (RecursionError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as YAML", str(error).split("\n")[0], _FIX) from None
