"""Starts commands, kills them at random moments, and checks what they leave."""

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

#: Seconds within which every process that a command started must have ended.
GRACE_S = 20.0


class Ended(NamedTuple):
    """How a command ended: its exit code, negative for a signal; its output; and the seconds until its last output.

    The time does not include the interpreter's shutdown, which is long after many imports.
    """

    code: int
    said: str
    seconds: float

    @property
    def how(self) -> str:
        """As a word: ``exit 0``, ``exit 143`` or ``SIGKILL``."""
        return signal.Signals(-self.code).name if self.code < 0 else f"exit {self.code}"


def anyway(words: Sequence[str]) -> None:
    """Runs a command. Allows a calibration without a GPU, whose times are not used."""
    alive.has_times = lambda: True
    main(words)


class Warm:
    """Starts commands as forks of a process that has imported them, to save the imports.

    Args:
        folder: for the commands' output.
        modules: imported in addition to the commands.
        more: environment variables of the process itself.
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
        """Runs a command to its end, or sends it a signal after some time; all its child processes must end too.

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
    """Running processes that were started with a given folder for temporary files."""
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
    """A command that is killed repeatedly in one folder.

    ``words`` returns the arguments of a run. ``whole`` checks all files and returns how many results are complete; this
    number must never decrease. Its argument says whether a file of lines may end with a partial line, as after a KILL.
    ``within_s`` is the time span for the kill if it is not the run's duration, ``code`` the expected exit code, and
    ``place`` the working folder if it is another one.
    """

    words: Callable[[int], list[str]]
    whole: Callable[[bool], int]
    within_s: float | None = None
    code: int = 0
    place: Path | None = None


def killed(victim: Victim, process: Warm, folder: Path, how: signal.Signals, times: int) -> Counter[str]:
    """Kills a command several times at different moments, checks all invariants after each, and returns how it ended.

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
        # The signal may arrive before the command handles it, or after its end while the interpreter shuts down.
        assert ended.code in (-how, victim.code, 128 + signal.SIGTERM), what
        assert "Traceback" not in ended.said, what
        assert "This is a bug" not in ended.said, what
        assert ended.code <= 128 or "stopped by SIGTERM" in ended.said, what
        done = victim.whole(how == signal.SIGKILL)
        assert done >= finished + (ended.code == victim.code), what
        finished = done
        if how != signal.SIGKILL:
            assert (left := left_in(folder)) == [], f"{what} left {left}"
    for path in scratch.iterdir():  # a recent file may belong to a process that has not registered it yet
        os.utime(path, (1, 1))
    last = process.run(victim.words(times + 1), place, scratch)
    assert last.code == victim.code, last.said
    assert victim.whole(False) > finished
    assert left_in(folder) == []
    return ends


def left_in(folder: Path) -> list[str]:
    """Files of fluxperf that are not results, and all temporary files."""
    return sorted({str(path) for path in (*folder.rglob(".fluxperf-*"), *(folder / "tmp").rglob("*"))})
