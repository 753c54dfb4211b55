"""Locks: several processes at once, another process that holds a lock too long, and locks of killed processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fluxperf.errors import RecordError
from fluxperf.files import locked
from tests.pure.test_files import names

#: Adds numbers to a file, one after another; the file is read, changed and written whole.
COUNTING = """
import os, sys
from pathlib import Path
from fluxperf.files import locked, write_whole
path = Path(sys.argv[1])
for number in range(int(sys.argv[2])):
    with locked(path):
        write_whole(path, path.read_text() + f"{os.getpid()} {number}\\n", durable=False)
"""

#: Appends lines that are longer than one write of a buffered file.
APPENDING = """
import os, sys
from pathlib import Path
from fluxperf.files import append_line
for number in range(int(sys.argv[2])):
    append_line(Path(sys.argv[1]), f"{os.getpid()} {number} {'x' * 20_000}\\n".encode())
"""


@pytest.mark.parametrize("program", [COUNTING, APPENDING], ids=["changing", "appending"])
def test_of_several_processes_at_once_nothing_is_lost(tmp_path: Path, program: str) -> None:
    path, times = tmp_path / "file", 30
    path.write_text("")
    running = [subprocess.Popen([sys.executable, "-c", program, str(path), str(times)]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0] * 3
    lines = [line.split()[:2] for line in path.read_text().splitlines()]
    assert sorted(lines) == sorted([str(process.pid), str(number)] for process in running for number in range(times))
    assert names(tmp_path) == ["file"]


def test_a_file_that_another_has_is_waited_for_and_then_refused(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 120)
    with locked(path):
        with pytest.raises(
            RecordError, match=r"no other process to change it, but one holds .*\.lock \(waited 0\.01 s\)"
        ):
            locked(path, 0.01).__enter__()
        with locked(tmp_path / "another"):
            pass
    with locked(path, 0):
        assert len(names(tmp_path)) == 1
    assert names(tmp_path) == []


def test_a_lock_that_a_killed_process_left_holds_off_nobody(tmp_path: Path) -> None:
    (tmp_path / ".fluxperf-file.lock").write_bytes(b"")
    with locked(tmp_path / "file", 0):
        pass
    with locked(Path("/dev/null")):
        assert names(tmp_path) == []


def test_a_link_is_locked_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/file")
    with locked(tmp_path / "link"), pytest.raises(RecordError, match="no other process"):
        locked(tmp_path / "there" / "file", 0).__enter__()
