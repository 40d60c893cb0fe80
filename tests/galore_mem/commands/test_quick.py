"""The quick binder means what cyclopts means, or leaves the line to it."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import pytest
from cyclopts import CycloptsError
from hypothesis import given, settings
from hypothesis import strategies as st

from galore_mem.answers.settings import Settings
from galore_mem.commands.app import COMMANDS
from galore_mem.commands.parser import build
from galore_mem.commands.quick import bind
from profiles.errors import InputError

OPTIONS = [f"--{field.name.replace('_', '-')}" for field in fields(Settings)]
OPTIONS += ["--gpu", "--method", "--other-use", "--json", "--csv", "--check", "--budget"]
OPTIONS += ["--for", "--min-rank", "--global-batch", "--no-checkpointing", "--emit", "--confirm", "--diff"]
ODD = ["--", "-", "-h", "--help", "--jsn", "--no-json", "--seq=5", "--rank=", "", " ", "-5", "0x10", "1e3", "1_0", "٣"]
VALUES = ["llama-7b", "4090", "128", "0", "007", "0.25", ".5", "inf", "whole", "per-layer", "Whole", "bf16", "amp_bf16"]
VALUES += ["full", "none", "auto", "22GiB", "true", "galore-adamw", "std", "reverse_std", "reverse-std", "all-linear"]
APP = build()


def slowly(tokens: Sequence[str]) -> tuple[list[Any], dict[str, Any]] | None:
    """What cyclopts binds; None where it refuses or answers by itself."""
    try:
        command, bound, *_ = APP.parse_args(list(tokens), exit_on_error=False, print_error=False)
    except (CycloptsError, InputError):
        return None
    return None if command.__name__ not in COMMANDS else (list(bound.args), bound.kwargs)


def check(tokens: Sequence[str]) -> bool:
    """Whether the quick binder bound `tokens`; if so, both agree."""
    try:
        quick = bind(tokens, COMMANDS)
    except InputError:
        assert slowly(tokens) is None
        return True
    if quick is not None:
        _, positional, named = quick
        assert (positional, named) == slowly(tokens)
    return quick is not None


words = st.sampled_from(OPTIONS) | st.sampled_from(VALUES) | st.sampled_from(ODD)


@settings(max_examples=600, deadline=None)
@given(st.lists(words, max_size=7).map(lambda tail: ["plan", "llama-7b", *tail]))
def test_where_both_bind_they_bind_alike(tokens: list[str]) -> None:
    check(tokens)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*COMMANDS, "plam", "--version"]), st.lists(words, max_size=3))
def test_every_command(name: str, tail: list[str]) -> None:
    check([name, *tail])


@pytest.mark.parametrize(
    "line",
    [
        "plan llama-7b --gpu 4090",
        "plan llama-7b --gpu 4090 h100 --gpu a100-80gb --json",
        "plan llama-7b --method galore-adamw-8bit --update per-layer --rank 1024 --gpu 4090 --check",
        "plan llama-7b --seq 2048 --scale 0.25 --keep-outputs --target-modules q_proj v_proj --method lora --csv",
        "plan --keep-outputs llama-7b --dropout 0.1 --budget 22GiB --other-use 800MiB --precision fp32",
        "gpus",
        "methods --json",
    ],
)
def test_ordinary_lines_are_quick(line: str) -> None:
    assert check(line.split())


@pytest.mark.parametrize("line", ["", "report", "plan llama-7b --help", "plan llama-7b --sqe 5", "plan a b", "-h"])
def test_what_needs_the_parser_is_left_to_it(line: str) -> None:
    assert bind(line.split(), COMMANDS) is None
