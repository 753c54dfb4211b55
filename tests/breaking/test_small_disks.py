"""A full disk of 64 KB: the message says what did not fit, existing files stay, and no partial file remains."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluxperf.errors import RecordError
from fluxperf.files import append_line, place, write_whole
from tests.pure.test_files import names

SIZE = 64 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounts a disk of 64 KB, which takes a root that may: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_what_does_not_fit_leaves_what_was_there(disk: Path, tmp_path: Path) -> None:
    path, made = disk / "page.html", tmp_path / "made"
    write_whole(path, bytes(20_000))
    made.write_bytes(bytes(80_000))
    for write in (
        lambda: write_whole(path, bytes(80_000)),
        lambda: write_whole(disk / "new", (bytes(1_000) for _ in range(80))),
        lambda: place(made, path),
        lambda: append_line(path, bytes(80_000) + b"\n"),
        lambda: append_line(disk / "lines", bytes(80_000) + b"\n"),
    ):
        with pytest.raises(RecordError, match="No space left on device"):
            write()
        assert names(disk) == ["page.html"]
        assert path.read_bytes() == bytes(20_000)
    assert made.stat().st_size == 80_000


def test_lines_fill_a_disk_to_the_last_that_fits(disk: Path) -> None:
    path, line = disk / "records.jsonl", b"x" * 4_999 + b"\n"

    def fill() -> None:
        for _ in range(100):
            append_line(path, line)

    with pytest.raises(RecordError, match="No space left on device"):
        fill()
    content = path.read_bytes()
    assert content == line * (len(content) // len(line))
    assert len(content) >= SIZE - 2 * len(line)
