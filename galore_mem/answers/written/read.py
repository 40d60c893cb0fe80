"""Whose configuration a file is, and the run that it asks for."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from galore_mem.answers.settings import OF_A_METHOD, Settings
from galore_mem.answers.written import axolotl, llama_factory, trainer
from galore_mem.answers.written.document import read_document
from galore_mem.answers.written.keys import Meaning
from galore_mem.answers.written.run import WrittenRun
from galore_mem.errors import UsageError

Reader = Callable[[dict[str, Any], str], WrittenRun]
READERS: tuple[tuple[tuple[str, ...], Reader], ...] = (
    (axolotl.SIGNS, axolotl.read),
    (llama_factory.SIGNS, llama_factory.read),
    (trainer.SIGNS, trainer.read),
)
"""Signs of each tool; the one of which a file shows most wins, the first of equals."""


def read_run(path: str) -> WrittenRun:
    """The run that a file asks for, as its tool would run it.

    Raises:
        UsageError: no such file, nobody's configuration, or a run that cannot be planned; one line that says why.
        InputError: a value that no run can have.
    """
    content = read_document(path)
    shown = [(sum(content.get(sign) is not None for sign in signs), read) for signs, read in READERS]
    most, read = max(shown, key=lambda pair: pair[0])
    if not most:
        raise UsageError(
            f"{path} is no training configuration of a tool that is known",
            "read are transformers' TrainingArguments, axolotl's and LLaMA-Factory's YAML",
            "give the options of galore-mem plan instead",
        )
    return read(content, path)


def filled_in(
    path: str, model: str | None, methods: Sequence[str], settings: Settings
) -> tuple[WrittenRun, str, Sequence[str], Settings]:
    """A file's run, with what was stated besides in the place of what the file says.

    Settings that mean nothing to a stated method are left out rather than refused: the file was written for another.

    Raises:
        UsageError: as `read_run`, or no model, or no length of sequences.
    """
    run = read_run(path)
    if model is None and run.model is None:
        raise UsageError(f"{path} names no model", "", f"type: galore-mem plan MODEL --from {path}")
    if not run.has_sequence_length and "seq" not in settings.stated:
        raise UsageError(f"{path} does not say how long sequences are", "the data decides", "add --seq N")
    own = run.settings if not methods else without_method(run.settings)
    merged = replace(own, **{name: getattr(settings, name) for name in settings.stated})
    return _marked(run, settings, methods), model or run.model or "", methods or (run.method,), merged


def without_method(settings: Settings) -> Settings:
    """The settings without those that belong to a method."""
    plain = Settings()
    return replace(settings, **{name: getattr(plain, name) for name in (*OF_A_METHOD, "update")})


def _marked(run: WrittenRun, settings: Settings, methods: Sequence[str]) -> WrittenRun:
    """The run with a word beside what was stated otherwise."""
    options = [f"--{name.replace('_', '-')} " for name in settings.stated] + ["--method "] * bool(methods)

    def marked(meaning: Meaning) -> Meaning:
        if not any(option in f"{meaning.effect} " for option in options):
            return meaning
        return replace(meaning, effect=f"{meaning.effect} (stated otherwise)")

    return replace(run, meanings=tuple(map(marked, run.meanings)))
