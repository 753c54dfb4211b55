"""Nothing in the repository names the machine that it was made on, or a package registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contracts import tree

#: Split into parts, so that this file does not contain them.
FORBIDDEN = [
    "".join(parts)
    for parts in (
        ("/wo", "rk/"),
        ("/ro", "ot/"),
        ("/tmp/", "venv"),
        ("pypi", ".org"),
        ("python", "hosted.org"),
        ("pypi", ".nvidia.com"),
        ("conda", ".anaconda.org"),
        ("registry", ".npmjs.org"),
        ("proxy", ".golang.org"),
        ("index", ".docker.io"),
        ("extra-", "index-url"),
    )
]


def texts() -> list[Path]:
    return [path for path in tree.tracked() if b"\0" not in path.read_bytes()[:8192]]


def test_no_text_names_a_machine_or_a_registry() -> None:
    files = texts()
    assert Path(__file__).resolve() in files
    found = [
        f"{tree.name(path)}:{number}: {word}"
        for path in files
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        for word in FORBIDDEN
        if word in line
    ]
    assert found == []


@pytest.mark.parametrize("word", FORBIDDEN)
def test_the_scan_would_see_it(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "bad.md"
    bad.write_text(f"a line\nsee {word}x\n")
    monkeypatch.setattr(tree, "tracked", lambda: [Path(__file__).resolve(), bad])
    monkeypatch.setattr(tree, "name", lambda path: path.name)
    with pytest.raises(AssertionError, match=r"bad\.md:2"):
        test_no_text_names_a_machine_or_a_registry()
