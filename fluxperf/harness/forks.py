"""Processes forked from one that has imported everything, for measurements with many processes.

A forked process has its own CUDA context, memory, kernels, plans and weights, as any process has. Only the imports are
shared, so code and libraries have the same addresses in all. The process that forks must never have used a GPU: its
forks would share the state of its driver. This is checked before each measurement.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import fluxperf
from fluxperf.errors import BuildError
from fluxperf.harness.checkouts import last_lines
from fluxperf.harness.forked import Main
from fluxperf.harness.gate import Side
from fluxperf.harness.isolation import surroundings
from fluxperf.harness.records import Record, read_records
from fluxperf.lifeline import GRACE_S, PATIENCE_S, led, undisturbed


class Forks:
    """Measures a side by a fluxperf command in a process forked from one that has imported it. Both sides are the same.

    Args:
        main: runs a command, given its words; a function of a module, so that another process can find it.
        arguments: the command, ``run`` or ``kernels``, and its options.
        folder: folder of records, and the processes' working directory.
        preload: modules that are imported before forking. One that cannot be imported is imported by each process.
    """

    def __init__(self, main: Main, arguments: Sequence[str], folder: Path, preload: Iterable[str]) -> None:
        self._arguments, self._folder, self._log = tuple(arguments), folder, folder / "forks.txt"
        self._command = [sys.executable, "-P", "-s", "-m", "fluxperf.harness.forked"]
        self._command += [f"{main.__module__}:{main.__qualname__}", *preload]
        self._process: subprocess.Popen[bytes] | None = None
        self._taken = 0

    def __enter__(self) -> Forks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def measure(self, side: Side) -> list[Record]:
        """Records of one process, one for each rung.

        Raises:
            BuildError: the process failed, or the one that forks has used a GPU.
            RecordError: it wrote no record, or an incomplete one.
        """
        self._taken += 1
        output, log = (self._folder / f"{side}-{self._taken}.{ending}" for ending in ("jsonl", "txt"))
        told = {**surroundings(), "FLUXPERF_CACHE": str(self._folder / f"cache-{side}")}
        words = [*self._arguments, "-o", str(output)]
        asked = {"words": words, "folder": str(self._folder), "log": str(log), "environment": told}
        code = self._run(json.dumps(asked).encode() + b"\n")
        if code is None:
            raise BuildError(
                f"measuring {side}: expected it to end within {PATIENCE_S:g} s, but it did not. Measure fewer "
                "generations, or find out why it is slow."
            )
        if code:
            said = log if log.exists() else self._log
            raise BuildError(
                f"measuring {side}: expected exit code 0, got {code}. Fix the reported "
                f"error:\n{last_lines(said.read_text(encoding='utf-8', errors='replace'))}"
            )
        found = read_records(output)
        if found.problems:
            raise BuildError(f"measuring {side}: {found.problems[0]} Run the gate again.")
        return found.records

    def close(self) -> None:
        """Ends the process that forks, and its current fork."""
        if self._process is None:
            return
        process, self._process = self._process, None
        with process:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                # its output ends with the last of them
                while process.stdout and select.select([process.stdout], [], [], GRACE_S)[0]:
                    if not process.stdout.read(100):
                        return

    def _run(self, asked: bytes) -> int | None:
        """Exit code of a process; ``None`` if it did not end, and was killed."""
        try:
            process = self._started()
            if process.stdin is None or process.stdout is None:  # an internal invariant: it is started with pipes
                raise AssertionError("no pipe")
            with suppress(BrokenPipeError):  # it ended: its messages say why
                process.stdin.write(asked)
            if select.select([process.stdout], [], [], PATIENCE_S)[0]:
                code = process.stdout.readline()
                return int(code) if code else process.wait()
        except BaseException:
            self.close()
            raise
        self.close()
        return None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            root = str(Path(fluxperf.__file__).resolve().parent.parent)
            descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            environment = {**surroundings(), **led(), "PYTHONPATH": root}
            try:
                with undisturbed():  # a signal during the start would leave the process without an owner
                    self._process = subprocess.Popen(
                        self._command, cwd=self._folder, env=environment, bufsize=0, stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE, stderr=descriptor, start_new_session=True,
                    )  # fmt: skip
            finally:
                os.close(descriptor)
        return self._process
