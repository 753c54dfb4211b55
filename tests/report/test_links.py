"""The page's links lead to files in its folder, whatever their names, and to HTTP addresses only."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import pytest

from fluxperf.harness.pages.links import link_to

HOSTILE = (
    "javascript:alert(1).jsonl",
    "a b#c?d&e=%41;+.jsonl",
    "\"><img src=x onerror=alert(1)>'.jsonl",
    "-new\nline\u202e.jsonl",
    "data:text,x.jsonl",
    os.fsdecode(b"\xff\xfe.jsonl"),
    "ü☃.jsonl",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_browser_finds_the_file(name: str, tmp_path: Path) -> None:
    home, folder = tmp_path / "out: 1", tmp_path / "records//x"
    for one in (home, folder):
        one.mkdir(parents=True)
    (folder / name).write_text("x")
    for place in (home, folder, tmp_path):
        link = link_to(f"{folder}/{name}", place)
        assert re.fullmatch(r"\./[A-Za-z0-9._~/%-]+", link)
        gone_to = urlsplit(urljoin((place / "page.html").as_uri(), link))
        assert (gone_to.scheme, gone_to.netloc, gone_to.query, gone_to.fragment) == ("file", "", "", "")
        assert os.path.samefile(unquote_to_bytes(gone_to.path), folder / name)


@pytest.mark.parametrize(
    ("file", "link"),
    [
        ("https://host/a b/\"x'>.jsonl?v=1", "https://host/a%20b/%22x%27%3E.jsonl?v=1"),
        ("http://host/%41.jsonl", "http://host/%41.jsonl"),
        ("HTTPS://host/x.jsonl", "HTTPS://host/x.jsonl"),
        ("s3://bucket/x.jsonl", ""),
        ("javascript://%0aalert(1)", ""),
        ("filecache::https://host/x.jsonl", ""),
        ("memory:///x.jsonl", ""),
        ("", ""),
        ("/nowhere/x.jsonl", ""),
        ("a\0b", ""),
        ("/", ""),
    ],
)
def test_urls_are_followed_where_a_browser_can(file: str, link: str, tmp_path: Path) -> None:
    assert link_to(file, tmp_path) == link


def test_a_page_without_a_place_has_no_links(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("x")
    assert link_to(str(tmp_path / "x.jsonl"), None) == ""
