"""What every page has around its sections: head, styles, header, links."""

from collections.abc import Sequence
from importlib.resources import files

from galore_mem.render.report.colours import category_colours
from galore_mem.render.report.text import escaped

STYLES = ("base.css", "banner.css", "figures.css", "print.css")
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
    "form-action 'none'"
)
Content = Sequence[tuple[str, str, str]]
"""(anchor, name, HTML) of every section."""


def whole(title: str, subtitle: str, banners: str, content: Content, tail: str) -> str:
    """The page.

    Args:
        title: of the run.
        subtitle: below it.
        banners: HTML that comes first.
        content: the sections.
        tail: HTML behind everything, such as scripts.
    """
    links = "".join(f'<a href="#{ident}">{escaped(name)}</a>' for ident, name, _ in content)
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">',
            f"<title>{escaped(title)}: memory report</title>",
            f"<style>{_colours()}{''.join(map(asset, STYLES))}</style></head><body>",
            '<a class="skip" href="#main">Skip to the report</a>',
            f'<header><div><p class="brand">galore-mem report</p><h1>{escaped(title)}</h1>'
            f"<p>{escaped(subtitle)}</p></div>"
            '<div class="tools"><button type="button" id="theme" aria-label="Colours: as the system">Auto</button>'
            '<button type="button" id="print">Print</button></div></header>',
            f'<nav aria-label="Sections">{links}</nav>',
            f'<main id="main">{banners}{"".join(body for _, _, body in content)}</main>',
            tail,
            "</body></html>\n",
        )
    )


def script(*names: str) -> str:
    """Scripts in one element, with names of their own."""
    return f"<script>(() => {{'use strict';\n{''.join(map(asset, names))}}})();</script>"


def asset(name: str) -> str:
    """A file that belongs to the page."""
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def _colours() -> str:
    """The palette as CSS variables and swatches."""
    table = category_colours()
    variables = "".join(f"--c-{name}:{colour};" for name, colour in table.items())
    swatches = "".join(f'[data-category="{name}"]{{background:var(--c-{name})}}' for name in table)
    return f":root{{{variables}}}{swatches}"
