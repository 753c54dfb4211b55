"""All outputs for one small study and one capture, compared with files, so that no text changes by accident.

`make golden` rewrites the files; the commit's diff then shows every changed text.
"""

from __future__ import annotations

import difflib
import io
import json
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fluxperf.cli.ladder import ladder
from fluxperf.harness.capture import compared, page
from fluxperf.harness.facts.study import Study, survey
from fluxperf.harness.formats.comment import comment
from fluxperf.harness.formats.digest import digest
from fluxperf.harness.pages import svg
from fluxperf.harness.report import html
from fluxperf.harness.text import units
from fluxperf.harness.timeline.differing import difference
from tests.report import evidence
from tests.report.captures import everything
from tests.report.pages import CONTEXT, GPU_SECONDS, files_of, on_gpu

FOLDER = Path(__file__).parent / "golden"

#: Elements that start a line of a page's text, and those whose text is ignored.
LINES = {"h1", "h2", "h3", "p", "li", "tr", "summary", "dt", "dd", "pre", "figure", "option", "div"}
SILENT = {"script", "style", "svg", "aside", "nav"}


class Lines(HTMLParser):
    """The text of a page, one line for each paragraph, heading or row."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.lines = [""]
        self._silent = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in SILENT
        if self._silent:
            return
        if tag in LINES:
            self.lines.append({"h1": "# ", "h2": "## ", "h3": "### ", "li": "- "}.get(tag, ""))
        elif tag in ("td", "th") and self.lines[-1]:
            self.lines[-1] += " | "
        elif tag in ("small", "span"):
            self.lines[-1] += " "

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in SILENT

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.lines[-1] += data.replace(units.NBSP, " ")

    def text(self) -> str:
        lines = (" ".join(line.split()) for line in self.lines)
        return "\n".join(line for line in lines if line) + "\n"


@pytest.fixture(scope="module")
def study() -> Study:
    records = [on_gpu(rung, GPU_SECONDS[rung]) for rung in ("baseline", "tensorcore", "fused")]
    (_, extras) = evidence.everything()
    return survey(files_of(*records), CONTEXT, extras._replace(timeline=None, history=evidence.course(12)))


def as_text(study: Study) -> str:
    console = Console(file=io.StringIO(), width=118, color_system=None)
    console.print(ladder(study.records))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def rounded(value: Any) -> Any:
    """Numbers rounded to six digits, because the last ones differ between machines."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def as_json(study: Study) -> str:
    return json.dumps(rounded(json.loads(digest(study))), indent=1, ensure_ascii=False) + "\n"


FACES = {
    "page.txt": lambda study: Lines(html.page(study)).text(),
    "comment.md": lambda study: comment(study).replace(units.NBSP, " "),
    "digest.json": as_json,
    "ladder.txt": as_text,
    "capture.txt": lambda study: Lines(page.page(everything())).text(),
    "captures.txt": lambda study: Lines(compared.compared(difference(everything(), everything(" later")))).text(),
}


@pytest.mark.parametrize("name", FACES)
def test_a_face_says_what_its_file_has(name: str, study: Study, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(svg, "inline", lambda *_: "<svg></svg>")  # the texts also describe what plots show
    said = FACES[name](study)
    path = FOLDER / name
    if os.environ.get("FLUXPERF_RENEW_GOLDEN"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(said, encoding="utf-8")
        return
    known = path.read_text(encoding="utf-8")
    changed = "\n".join(difflib.unified_diff(known.splitlines(), said.splitlines(), name, "now", lineterm="", n=1))
    assert said == known, f"If that is meant, run `make golden` and commit it.\n{changed}"
