"""Commands whose disk fails at every stage: the n-th call that needs it, for every n."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fluxperf.harness.records import read_records
from tests.breaking.killing import Ended, Warm, left_in

SOURCE = Path(__file__).with_name("failing_disk.c")

#: Errors of disks: full, over quota, I/O error, and read-only.
ANSWERS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)

#: The start of a record that is printed because no file could be written.
_PRINTED = re.compile(r"^\{\"schema\"", re.MULTILINE)

#: How SQLite reports these errors.
_SQLITE = ("disk I/O error", "database or disk is full", "unable to open database file", "readonly database")

#: An upper bound of the calls of any command.
ALL = 2**60


def built(folder: Path) -> Path:
    """The library that makes file calls fail, compiled in a folder."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("a library that is preloaded stands between commands and their disk: takes Linux and cc")
    library = folder / "failing_disk.so"
    words = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cc makes no library that can be preloaded here: {done.stderr[-300:]}")
    return library


class Fault(NamedTuple):
    """The calls that fail, numbered from 1, and the error of the disk; ``forever``: all later calls fail too."""

    number: int
    answer: int
    forever: bool


class Measured(NamedTuple):
    """A result of a long measurement that must not be lost: if its file cannot be written, it is in another file, or
    printed.

    ``count`` receives the files and returns how many of the ``wanted`` results are in them. The first ``checks`` calls
    come before anything is measured.
    """

    name: str
    count: Callable[[list[Path]], int]
    wanted: int
    checks: int


class Writer(NamedTuple):
    """A command that writes files.

    ``words`` receives the folder for the outputs. Each entry of ``outputs`` has a check that raises if the file is
    incomplete. ``prepare`` writes input files, ``code`` is the expected exit code, ``setting`` holds more environment
    variables.
    """

    words: Callable[[Path], list[str]]
    outputs: Mapping[str, Callable[[Path], object]]
    prepare: Callable[[Path], object] = lambda folder: None
    measured: Sequence[Measured] = ()
    code: int = 0
    setting: Callable[[Path], dict[str, str]] = lambda folder: {}


class Sweep:
    """Runs of one command with failing disks, each in a folder of its own.

    Args:
        folder: parent of these folders.
        process: starts commands.
        library: makes file calls fail.
        writer: the command.
        whose: which of a run's folders ``out``, ``tmp`` and ``cache`` are on the failing disk.
    """

    def __init__(self, folder: Path, process: Warm, library: Path, writer: Writer, whose: str = "out") -> None:
        self._folder, self._process, self._library, self._writer = folder, process, library, writer
        self._whose, self._number = whose, 0

    def calls(self) -> list[str]:
        """Number of file calls of a run without failures."""
        place, ended, calls = self._run(None)
        assert ended.code == self._writer.code, ended.said
        wrong = self._wrong(place, ended, None)
        assert not wrong, f"{wrong}: {ended.said}"
        shutil.rmtree(place)
        return calls

    def fails(self, fault: Fault) -> list[str]:
        """Violations found after a run in which some calls fail."""
        place, ended, calls = self._run(fault)
        wrong = self._wrong(place, ended, fault)
        failed = [call for call in calls if " FAILS " in call]
        if wrong:
            wrong.append(f"{fault}; {failed[:3]}; exit {ended.code}: {ended.said}")
        shutil.rmtree(place)
        return wrong

    def _run(self, fault: Fault | None) -> tuple[Path, Ended, list[str]]:
        self._number += 1
        place = self._folder / f"try-{self._number}"
        for name in ("out", "tmp", "cache"):
            (place / name).mkdir(parents=True)
        self._writer.prepare(place / "out")
        count, log = place / "count", place / "log"
        count.write_bytes(bytes(8))
        under = str(place / self._whose)
        told = {
            "LD_PRELOAD": str(self._library), "FAILING_UNDER": under, "FAILING_COUNT": str(count),
            "FAILING_LOG": str(log), "FLUXPERF_CACHE": str(place / "cache"), **self._writer.setting(place / "out"),
        }  # fmt: skip
        if fault is not None:
            last = ALL if fault.forever else fault.number
            told |= {"FAILING_FROM": str(fault.number), "FAILING_TO": str(last), "FAILING_WITH": str(fault.answer)}
        ended = self._process.run(self._writer.words(place / "out"), place, place / "tmp", more=told)
        return place, ended, log.read_text().splitlines() if log.exists() else []

    def _wrong(self, place: Path, ended: Ended, fault: Fault | None) -> list[str]:
        said, out, found = ended.said, place / "out", list[str]()
        if ended.code not in (self._writer.code, 2):
            found.append("another exit code")
        for word in ("Traceback", "This is a bug", "Errno", "Exception ignored"):
            if word in said:
                found.append(f"says {word}")
        answers = (os.strerror(fault.answer), *_SQLITE) if fault is not None else ("",)
        if ended.code == 2 != self._writer.code and not any(why in said for why in answers):
            found.append("does not say what the disk answered")
        for name, read in self._writer.outputs.items():
            path = out / name
            if not path.exists():
                if ended.code == self._writer.code != 2:
                    found.append(f"success without {name}")
                continue
            try:
                read(path)
            except Exception as error:  # noqa: BLE001 -- any error that a reader raises for a partial file
                found.append(f"{name} is not whole: {error!r}")
        found += self._lost(place, ended, fault)
        rescued = [path for path in (place / "tmp").iterdir() if path.name.startswith("fluxperf-rescued-")]
        for path in rescued:
            if str(path) not in said:
                found.append(f"{path.name} is not said")
        whole = {str(path) for path in rescued}
        if left := [path for path in left_in(place) if path not in whole]:
            found.append(f"left {left}")
        return found

    def _lost(self, place: Path, ended: Ended, fault: Fault | None) -> list[str]:
        found = []
        for what in self._writer.measured:
            paths = [place / "out" / what.name, *(place / "tmp").glob(f"fluxperf-rescued-*{what.name}")]
            kept = what.count([path for path in paths if path.exists()]) + len(_PRINTED.findall(ended.said))
            due = what.name in self._writer.outputs if ended.code != 2 else fault is None or fault.number > what.checks
            if due and kept != what.wanted:
                found.append(f"{kept} of {what.wanted} kept of {what.name}")
        return found


def records(path: Path) -> Any:
    """Number of lines of a records file; all of them must be complete."""
    found = read_records(path)
    assert not found.problems, found.problems
    return found.records
