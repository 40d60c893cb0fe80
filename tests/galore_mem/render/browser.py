"""A page in headless Chromium: what it says, and what it complains about."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

READY = "html[data-ready=yes]"


Browser = Any
"""Of playwright, which need not be installed."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running browser; skips, with the reason, where there is none."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'galore-mem[test]'")
    with api.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield running
        finally:
            running.close()


class Opened:
    """One page, watched: what it logged, and what it asked the network for."""

    def __init__(self, browser: Browser, path: Path, *, width: int = 1280, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        address = path.as_uri()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url, address))
        self.page.goto(address)
        self.page.wait_for_selector(READY, timeout=120_000)

    def _note(self, requested: str, own: str) -> None:
        if requested != own and not requested.startswith(("data:", "blob:")):
            self.requests.append(requested)

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def text(self, selector: str) -> str:
        """What an element says."""
        return str(self.page.inner_text(selector))

    def ask(self, expression: str) -> Any:  # noqa: ANN401
        """The value of an expression in the page."""
        return self.page.evaluate(expression)
