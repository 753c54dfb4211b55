"""The pages of the public API: every public name is on a page, and every link has a target."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("api_pages", ROOT / "docs" / "api" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


api = _loaded()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pdoc", reason="builds the pages of the API; pdoc comes with the extra docs")
    folder = tmp_path_factory.mktemp("api")
    api.build(folder)
    return folder


def test_every_public_name_has_a_place_and_every_link_leads_somewhere(pages: Path) -> None:
    assert list(api.broken(pages)) == []


def test_a_call_of_the_pipeline_is_explained_and_what_is_private_is_not(pages: Path) -> None:
    text = api.page_of(pages, "fluxperf").read_text(encoding="utf-8")
    assert 'id="Pipeline.__call__"' in text
    assert "num_inference_steps" in text
    assert "_besides" not in text


def test_the_first_page_leads_to_all_others(pages: Path) -> None:
    text = api.page_of(pages, "fluxperf").read_text(encoding="utf-8")
    for name in api.MODULES[1:]:
        assert f'href="{name.replace(".", "/")}.html"' in text, name


def test_names_in_the_docs_have_a_place(pages: Path) -> None:
    """Names of the package in code blocks and in prose are public, or are file names."""
    names = set()
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        names |= set(re.findall(r"`fluxperf\.(\w+)(?=[`.(])", page.read_text(encoding="utf-8")))
    assert {"Pipeline", "records_frame", "gpu"} <= names
    first = api.page_of(pages, "fluxperf").read_text(encoding="utf-8")
    assert [name for name in names if f'id="{name}"' not in first and f"fluxperf.{name}" not in api.MODULES] == []


def test_what_leads_nowhere_and_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MODULES", ("fluxperf.errors",))
    monkeypatch.setattr(api, "public", lambda module: ["FluxperfError", "Lost"])
    page = api.page_of(tmp_path, "fluxperf.errors")
    page.parent.mkdir()
    page.write_text(
        '<p id="FluxperfError"><a href="#FluxperfError">here</a> <a href="#gone">x</a> <a href="../no.html">y</a>'
        '<a href="https://example.org/z">z</a></p>',
        encoding="utf-8",
    )
    assert list(api.broken(tmp_path)) == [
        "fluxperf/errors.html: no #gone",
        "fluxperf/errors.html: no ../no.html",
        "fluxperf.errors.Lost: on no page",
    ]
