"""Chromium for all tests, through Playwright or its own protocol: without a network, with all requests and messages
recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fluxperf.files import write_whole
from fluxperf.harness.report.html import render
from tests.browser.devtools import CHROMIUM, Browser
from tests.report import evidence
from tests.report import pages as made


@pytest.fixture(scope="package")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of many records: two machines, a missing rung, peers, and all kinds of evidence."""
    path = tmp_path_factory.mktemp("everything") / "report.html"
    files, extras = evidence.everything()
    write_whole(path, render(files, made.CONTEXT, extras))
    return path


@pytest.fixture(scope="package")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same report with a record whose texts are hostile and long."""
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    record = made.hostile("\u202e</script><script>document.title = 'taken'</script>" + "x" * 10_000)
    files, extras = evidence.everything(record)
    write_whole(path, render(files, made.CONTEXT, extras))
    return path


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser through its own protocol, for drawing and pointer tests."""
    if CHROMIUM is None:
        pytest.skip("needs Debian's chromium on PATH")
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="package")
def driven() -> Iterator[Any]:
    """A browser through Playwright, for a reader's actions on a page."""
    playwright = pytest.importorskip("playwright.sync_api", reason="drives chromium; comes with the test extra")
    if CHROMIUM is None:
        pytest.skip("needs Debian's chromium on PATH")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND"],
        )
        yield browser
        browser.close()


Opener = Callable[..., Any]


@pytest.fixture
def opened(driven: Any) -> Iterator[Opener]:
    """Opens a file at a width and in a theme; at the end the page must have made no request and logged no error."""
    contexts, heard = [], []

    def open_file(path: Path, width: int = 1440, theme: str = "light", scripts: bool = True, height: int = 900) -> Any:
        context = driven.new_context(
            viewport={"width": width, "height": height},
            color_scheme=theme,
            offline=True,
            java_script_enabled=scripts,
            reduced_motion="reduce",
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("request", lambda request: heard.append(f"request: {request.url[:100]}") if asks(request.url) else None)
        page.heard = heard
        page.goto(path.as_uri())
        return page

    def asks(url: str) -> bool:
        return not url.startswith(("file:", "data:"))

    yield open_file
    for context in contexts:
        context.close()
    assert heard == []
