"""The report in a real browser without a network: no console error, no overflow, tables that sort, both themes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from fluxperf.harness.report.html import render, write
from tests.report import pages as synthetic

CHROMIUM = shutil.which("chromium") or ("/usr/bin/chromium" if Path("/usr/bin/chromium").exists() else None)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium on PATH"),
]

WIDTHS = (1440, 768, 390)

# What the test copy of the page measures about itself and tells the page that frames it.
PROBE = """
<script>
addEventListener("load", () => {
  const root = document.documentElement;
  const clipped = Array.from(document.querySelectorAll("p, li, h1, h2, h3, summary, .table, figure, pre"))
    .filter((element) => element.offsetWidth && element.getBoundingClientRect().right > innerWidth + 1)
    .map((element) => element.outerHTML.slice(0, 120));
  const header = document.querySelector("#ladder table thead th:nth-child(6)");
  const body = header.closest("table").tBodies[0];
  const firsts = () => Array.from(body.rows, (row) => row.cells[0].firstChild.data.trim());
  const fill = (element) => getComputedStyle(element).fill;
  const before = firsts();
  header.querySelector("button").focus();
  header.querySelector("button").click();
  const sort = header.getAttribute("aria-sort");
  const after = firsts();
  header.querySelector("button").click();
  const raw = document.querySelector("details.raw");
  raw.open = true;
  setTimeout(() => parent.postMessage({
    width: innerWidth, content: root.scrollWidth, clipped, before, after, sort,
    again: header.getAttribute("aria-sort"), reversed: firsts(),
    focused: document.activeElement.tagName,
    raw: raw.querySelector("pre").textContent.slice(0, 200),
    background: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
    drawn: Array.from(document.querySelectorAll("svg text"), fill)
      .filter((colour) => colour === getComputedStyle(document.body).color).length,
  }, "*"), 200);
});
</script>
"""

FRAME = """<!DOCTYPE html><title>frame</title>
<style>body{{margin:0}}iframe{{border:0;width:{width}px;height:{height}px}}</style>
<iframe src="{name}"></iframe><pre id="told"></pre>
<script>
addEventListener("message", (event) => {{
  document.getElementById("told").textContent = JSON.stringify(event.data);
}});
</script>
"""


def chromium(folder: Path, page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Opens ``page`` headless; every name resolves to nowhere and the proxy leads there too."""
    assert CHROMIUM
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--proxy-server=127.0.0.1:9",
        "--enable-logging=stderr",
        "--virtual-time-budget=4000",
        f"--user-data-dir={folder / 'profile'}",
        *options,
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the report of many records, and its copy that measures itself."""
    folder = tmp_path_factory.mktemp("page")
    made = synthetic
    records = [*made.twins("tensorcore"), *(made.on_gpu(rung, seconds) for rung, seconds in made.GPU_SECONDS.items())]
    records.append(made.hostile("\u202e</script>" + "x" * 10_000))
    html = render(made.files_of(*records, problems=("a.jsonl, line 3: torn " + "y" * 300,)), made.CONTEXT)
    write(html, folder / "report.html")
    # The page's own policy forbids the probe; everything else of it stays in force.
    copy = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", html, count=1)
    write(copy.replace("</body>", PROBE + "</body>"), folder / "probe.html")
    return folder


def probe(pages: Path, tmp_path: Path, width: int, *options: str) -> dict[str, Any]:
    """What the page says about itself in a viewport of ``width`` pixels."""
    frame = pages / f"frame-{width}.html"
    frame.write_text(FRAME.format(width=width, height=900, name="probe.html"))
    told = chromium(tmp_path, frame, f"--window-size={max(width, 500)},900", "--dump-dom", *options).stdout
    found = re.search(r'<pre id="told">(.+?)</pre>', told, re.DOTALL)
    assert found, "the page told nothing"
    result: dict[str, Any] = json.loads(unescape(found[1]))
    return result


def test_page_opens_without_a_console_message(pages: Path, tmp_path: Path):
    done = chromium(tmp_path, pages / "report.html", "--dump-dom")
    assert "CONSOLE" not in done.stderr, done.stderr
    assert "FLUX.1, rung by rung" in done.stdout


def test_console_messages_would_be_seen(pages: Path, tmp_path: Path):
    broken = pages / "broken.html"
    html = (pages / "report.html").read_text(encoding="utf-8")
    broken.write_text(html.replace("</body>", "<script>alert(1)</script></body>"), encoding="utf-8")
    assert "CONSOLE" in chromium(tmp_path, broken, "--dump-dom").stderr, "the policy refuses any other script"


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overflows_or_is_clipped(pages: Path, tmp_path: Path, width: int):
    told = probe(pages, tmp_path, width)
    assert told["width"] == width
    assert told["content"] <= width
    assert told["clipped"] == []


def test_tables_sort_and_raw_records_open(pages: Path, tmp_path: Path):
    told = probe(pages, tmp_path, 1440)
    assert told["before"][0] == "baseline"
    assert told["after"] == told["before"][::-1], "fp8 takes the shortest time"
    assert told["reversed"] == told["before"]
    assert (told["sort"], told["again"]) == ("ascending", "descending")
    assert told["focused"] == "BUTTON"
    assert '"schema": 1' in told["raw"]


def test_dark_theme_turns_the_page_and_its_plots(pages: Path, tmp_path: Path):
    light = probe(pages, tmp_path, 768, "--blink-settings=preferredColorScheme=1")
    dark = probe(pages, tmp_path, 768, "--blink-settings=preferredColorScheme=0")
    assert light["background"] != dark["background"]
    assert light["ink"] != dark["ink"]
    assert light["drawn"] == dark["drawn"] > 20, "text in plots has the page's colour in both themes"


@pytest.mark.parametrize("width", WIDTHS)
def test_screenshots_are_made(pages: Path, tmp_path: Path, width: int):
    shot = tmp_path / f"{width}.png"
    chromium(tmp_path, pages / "report.html", f"--window-size={width},1200", f"--screenshot={shot}")
    head = shot.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(head[20:24]) == 1200
