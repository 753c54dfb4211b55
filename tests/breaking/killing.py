"""Commands that are killed at random moments: how one is started, ended and looked after."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from fluxperf.cli import COMMANDS, alive, main
from fluxperf.lifeline import led
from tests.contracts.tree import ROOT

#: Threads that wait for each other cost twice the time.
ALONE = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

#: Seconds in which everything must have ended that a command started.
GRACE_S = 20.0


class Ended(NamedTuple):
    """How a command ended: its exit code, negative for a signal; what it printed; seconds until it last did so.

    What comes behind is Python's own end, which is long where much was imported.
    """

    code: int
    said: str
    seconds: float

    @property
    def how(self) -> str:
        """In a word: ``exit 0``, ``exit 143`` or ``SIGKILL``."""
        return signal.Signals(-self.code).name if self.code < 0 else f"exit {self.code}"


def anyway(words: Sequence[str]) -> None:
    """Runs a command; a calibration without a GPU, too, of times that count for nothing elsewhere."""
    alive.has_times = lambda: True
    main(words)


class Warm:
    """Starts commands in forks of a process that has imported them: what a shell would start, without the imports.

    Args:
        folder: for what the commands print.
        modules: that are imported besides the commands.
        more: of the environment of the process itself.
    """

    def __init__(self, folder: Path, modules: Sequence[str] = (), more: Mapping[str, str] | None = None) -> None:
        self._log = folder / "said.txt"
        commands = [f"fluxperf.cli.{name.replace('-', '_')}" for name in COMMANDS]
        environment = {**os.environ, **ALONE, **led(), **(more or {})}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fluxperf.harness.forked", "tests.breaking.killing:anyway", *commands, *modules],
            cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
        )  # fmt: skip

    def run(
        self,
        words: Sequence[str],
        folder: Path,
        scratch: Path,
        how: signal.Signals | None = None,
        after_s: float = 0.0,
        more: Mapping[str, str] | None = None,
    ) -> Ended:
        """Runs a command to its end, or sends it a signal after so many seconds; all that it started must end, too.

        Args:
            words: of the command.
            folder: that it runs in.
            scratch: its folder for temporary files, by which its processes are known.
            how: the signal.
            after_s: when.
            more: of its environment.
        """
        told = {**os.environ, **ALONE, "TMPDIR": str(scratch), "FLUXPERF_CACHE": str(scratch.with_name("cache"))}
        told |= more or {}
        asked = {"words": words, "folder": str(folder), "log": str(self._log), "environment": told}
        start = time.time()
        _stream(self._process.stdin).write(json.dumps(asked) + "\n")
        _stream(self._process.stdin).flush()
        if how is not None:
            time.sleep(after_s)
            for child in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(child), how)
        code = int(_stream(self._process.stdout).readline())
        ended = Ended(code, self._log.read_text(errors="replace"), self._log.stat().st_mtime - start)
        until = time.monotonic() + GRACE_S
        while living := descendants(scratch):
            assert time.monotonic() < until, f"{words} is over, and {living} live on"
            time.sleep(0.02)
        return ended

    def close(self) -> None:
        _stream(self._process.stdin).close()
        self._process.wait(GRACE_S)
        _stream(self._process.stdout).close()


def _stream(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def descendants(scratch: Path) -> list[str]:
    """Processes that were started with a folder for temporary files, and run."""
    sought, found = f"\0TMPDIR={scratch}\0".encode(), []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if state not in "ZX" and sought in b"\0" + (folder / "environ").read_bytes():
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(f"{folder.name} ({words[:200]})")
    return found


class Victim(NamedTuple):
    """A command that is killed again and again in one folder.

    ``words`` are the command's of a try, ``whole`` looks at everything that is there and returns how much of it is
    finished, which never becomes less; it is told whether half of a line may be at the end of a file of lines, as after
    a KILL. ``within_s`` is the time within which it is killed, where that is not the time that it takes, and
    ``code`` what it ends with, ``place`` the folder that it runs in, where that is another one.
    """

    words: Callable[[int], list[str]]
    whole: Callable[[bool], int]
    within_s: float | None = None
    code: int = 0
    place: Path | None = None


def killed(victim: Victim, process: Warm, folder: Path, how: signal.Signals, times: int) -> Counter[str]:
    """How a command ended that was killed at so many moments; everything that must hold is looked at after each.

    Args:
        victim: the command.
        process: starts it.
        folder: that it runs and writes in.
        how: it is killed.
        times: how often.
    """
    scratch, place = folder / "tmp", victim.place or folder
    scratch.mkdir()
    seconds = victim.within_s or process.run(victim.words(0), place, scratch).seconds
    finished, ends = victim.whole(False), Counter[str]()
    for number in range(1, times + 1):
        words, draw = victim.words(number), random.Random(f"{folder.name} {how} {number}")
        ended = process.run(words, place, scratch, how, draw.uniform(0, 1.05 * seconds))
        ends[ended.how] += 1
        what = f"{words}, try {number}: {ended.how}, {ended.said}"
        # A signal may come before a command listens, or when it is over and Python ends.
        assert ended.code in (-how, victim.code, 128 + signal.SIGTERM), what
        assert "Traceback" not in ended.said, what
        assert "This is a bug" not in ended.said, what
        assert ended.code <= 128 or "stopped by SIGTERM" in ended.said, what
        done = victim.whole(how == signal.SIGKILL)
        assert done >= finished + (ended.code == victim.code), what
        finished = done
        if how != signal.SIGKILL:
            assert (left := left_in(folder)) == [], f"{what} left {left}"
    for path in scratch.iterdir():  # what is young may be of a process that is just about to own it
        os.utime(path, (1, 1))
    last = process.run(victim.words(times + 1), place, scratch)
    assert last.code == victim.code, last.said
    assert victim.whole(False) > finished
    assert left_in(folder) == []
    return ends


def left_in(folder: Path) -> list[str]:
    """Files of fluxperf that are no results, and all temporary ones."""
    return sorted({str(path) for path in (*folder.rglob(".fluxperf-*"), *(folder / "tmp").rglob("*"))})
