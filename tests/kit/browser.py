"""A real Chromium, Debian's, driven by Playwright. What its pages report is kept: violations of their policy, errors of their scripts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, sync_playwright

from kit.require import missing

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"]  # in a container, as root


@contextmanager
def chromium() -> Iterator[Browser]:
    """Skips or fails where there is none: see REQUIRE."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        missing("browser", "chromium is not installed (Debian: apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page of a Dray, in a context of its own. `complaints`: what a page of ours must never make a browser say."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.context: BrowserContext = browser.new_context(base_url=url, **{"viewport": {"width": 1200, "height": 900}, **options})
        self.context.set_default_timeout(40000)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("dialog", self._dialog)
        self.page.on("request", lambda request: self.asked.append(request.url))

    def open(self, address: str = "") -> Page:
        """`address` is what follows `#`."""
        self.page.goto(f"/#{address}")
        return self.page

    def close(self) -> None:
        self.context.close()

    def _dialog(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _console(self, message: ConsoleMessage) -> None:
        """Answers that are no success are told there too: those a page may get."""
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(f"{message.type}: {message.text}")
