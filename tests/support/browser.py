"""A headless Chromium, driven by Playwright: what a reader of a page sees and does, for tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "chrome-headless-shell")
FLAGS = ("--disable-gpu", "--disable-quic")
TIMEOUT = 120_000
"""Milliseconds that anything may take: the machine may be busy."""


def require_browser() -> str:
    """A Chromium: named by DUALSMOOTH_BROWSER, installed on this machine, or fetched by `make browser`. The test is
    skipped where there is none."""
    fetched = ROOT / "build" / "browser" / "chromium"
    installed = (path for path in map(shutil.which, NAMES) if path and Path(path).stat().st_size)
    found = (
        os.environ.get("DUALSMOOTH_BROWSER") or next(installed, None) or (str(fetched) if fetched.exists() else None)
    )
    return found or pytest.skip("no Chromium: install one, or `make browser`")


class Page:
    """The page of a running browser that shows the file opened last."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self.requests: list[str] = []
        self.errors: list[str] = []

    def open(
        self,
        place: Path | str,
        *,
        width: int = 1280,
        height: int = 900,
        dark: bool = False,
        refusals: bool = False,
    ) -> None:
        """Show a local file, or an address, as on a phone where the window is narrow, and wait until its own code has
        run. `refusals`: what the browser logs of an answer with status 400 is no error."""
        for old in self._browser.contexts:
            old.close()
        self.requests, self.errors = requests, errors = [], []
        context = self._browser.new_context(
            viewport={"width": width, "height": height},
            is_mobile=width < 600,
            color_scheme="dark" if dark else "light",
        )
        context.set_default_timeout(TIMEOUT)
        self._page = page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: self._said(errors, message.type, message.text, refusals))
        page.goto(place if isinstance(place, str) else place.resolve().as_uri())
        if not self.run("document.documentElement.dataset.ready === 'yes'"):
            raise RuntimeError(f"the page's code did not run: {self.errors}")

    def _said(self, errors: list[str], kind: str, text: str, refusals: bool) -> None:
        if kind == "error" and not (refusals and "status of 400" in text):
            errors.append(text)

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        return self._page.evaluate(expression)

    def wait(self, condition: str) -> None:
        """Wait until a JavaScript expression is true. (`wait_for_function` is what the page's own policy forbids.)"""
        deadline = time.monotonic() + TIMEOUT / 1000
        while not self.run(condition):
            if time.monotonic() > deadline or self.errors:
                raise TimeoutError(f"{condition} did not come true; errors: {self.errors}")
            self._page.wait_for_timeout(20)

    def click(self, selector: str) -> None:
        """A real mouse click in the middle of the first element that fits."""
        self._page.locator(selector).first.click()

    def hover(self, selector: str) -> None:
        self._page.locator(selector).first.hover()

    def press(self, key: str) -> None:
        self._page.keyboard.press(key)

    def choose_file(self, selector: str, path: Path) -> None:
        self._page.locator(selector).set_input_files(path)

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        self._page.screenshot(path=path, full_page=whole)


@contextlib.contextmanager
def browser(executable: str) -> Iterator[Page]:
    """A fresh browser, which is ended with the block."""
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=executable, args=list(FLAGS), timeout=TIMEOUT)
        try:
            yield Page(running)
        finally:
            running.close()
