"""Markdown as pages that benchmarks write have it."""

import textwrap
from collections.abc import Iterable


def table(head: str, lines: Iterable[Iterable[object]]) -> list[str]:
    """A Markdown table."""
    names = head.split(" | ")
    return [f"| {head} |", "|" + "---|" * len(names), *(f"| {' | '.join(map(str, line))} |" for line in lines), ""]


def paragraph(*sentences: str) -> list[str]:
    """Text in lines of a page's width."""
    return [*textwrap.wrap(" ".join(sentences), 120), ""]
