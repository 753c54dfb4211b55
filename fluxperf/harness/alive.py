"""Processes that stay alive: base and head have their weights in place at once, and are measured in turns.

Each side has one process or several, started when the first turn is asked for; the first of each side alone, so that
trials are not disturbed and the others find kernels and choices in its cache. Processes of a side take turns; so do the
couples of both sides. Turns of one process share what it has for life (where memory lies, what was chosen), so the gate
counts processes, too.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, AnyStr, NamedTuple, Protocol

from fluxperf.errors import BuildError
from fluxperf.harness.gate import Side
from fluxperf.harness.records import Record, read_records
from fluxperf.lifeline import DONE, READY, led

#: Seconds that a process gets to end when no more turns come, and lines of its messages that an error repeats.
_GRACE_S, _LINES = 60.0, 12


class Programs(Protocol):
    """Knows how a side is started, and whether what was started is what it should be."""

    def begin(self, side: Side, options: Sequence[str]) -> Begun:
        """Command, environment and files of a fresh process of a side."""

    def checked(self, side: Side, begun: Begun, records: Sequence[Record]) -> None:
        """Refuses a process that imported other files, or records of another commit.

        Raises:
            BuildError: it did.
        """


class Begun(NamedTuple):
    """How a process is started: its command, environment and folder; where its records, imports and messages go."""

    command: list[str]
    environment: dict[str, str]
    folder: Path
    output: Path
    told: Path
    what: str


class _Worker:
    """One process that takes turns."""

    def __init__(self, begun: Begun) -> None:
        self.begun = begun
        self.records: list[Record] = []
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `kill`)
        self._process = subprocess.Popen(
            begun.command, cwd=begun.folder, env={**begun.environment, **led()}, text=True, errors="replace",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._messages,
        )  # fmt: skip

    def wait_for(self, word: str) -> None:
        """Reads what it prints up to a word."""
        for line in _pipe(self._process.stdout):
            if line.strip() == word:
                return
        code = self._process.wait()
        self._messages.seek(0)
        last = "\n".join(self._messages.read().decode(errors="replace").rstrip().splitlines()[-_LINES:])
        raise BuildError(
            f"{self.begun.what}: expected a process that stays alive and says {word!r}, it ended with {code}. "
            f"Correct what it says, or measure in fresh processes:\n{last}"
        )

    def turn(self, planted: int | None) -> list[Record]:
        """Records of one more turn."""
        orders = _pipe(self._process.stdin)
        with suppress(BrokenPipeError):  # it ended: its words say why
            orders.write("\n" if planted is None else f"{planted}\n")
            orders.flush()
        self.wait_for(DONE)
        found = read_records(self.begun.output)
        if found.problems:
            raise BuildError(f"{self.begun.what}: {found.problems[0]} Run the gate again.")
        taken = found.records[len(self.records) :]
        self.records = found.records
        return taken

    def end(self) -> None:
        """No more turns."""
        with suppress(BrokenPipeError):
            _pipe(self._process.stdin).close()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Whatever it is doing."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                _pipe(stream).close()
        self._messages.close()


class Alive:
    """Measures a side by the next of its processes.

    Args:
        programs: starts them.
        number: of processes of each side.
    """

    def __init__(self, programs: Programs, number: int = 1) -> None:
        self._programs, self._number = programs, number
        self._workers: dict[Side, list[_Worker]] = {"base": [], "head": []}
        self._turns: dict[Side, int] = {"base": 0, "head": 0}

    def __enter__(self) -> Alive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        workers = [(side, worker) for side, some in self._workers.items() for worker in some]
        with ExitStack() as ends:
            for _, worker in workers:
                ends.callback(worker.kill)
            if kind is None:
                for side, worker in workers:
                    worker.end()
                    self._programs.checked(side, worker.begun, worker.records)

    def measure(self, side: Side, planted: int | None = None) -> list[Record]:
        """Records of one turn, one for each rung.

        Args:
            side: whose turn it is.
            planted: cycles of work that follow each step; see `fluxperf.turns`.

        Raises:
            BuildError: a process does not begin, or ended.
            RecordError: it wrote no record, or half of one.
        """
        if not self._workers["base"]:
            self._start()
        workers, turn = self._workers[side], self._turns[side]
        self._turns[side] += 1
        # Couples change: where all have had a turn, the head's order moves on by one.
        place = turn if side == "base" else turn + turn // self._number
        return workers[place % self._number].turn(planted)

    def _start(self) -> None:
        sides: tuple[Side, Side] = ("base", "head")
        for side in sides:
            self._begin(side).wait_for(READY)
        begun = [self._begin(side) for side in sides for _ in range(1, self._number)]
        for worker in begun:
            worker.wait_for(READY)

    def _begin(self, side: Side) -> _Worker:
        worker = _Worker(self._programs.begin(side, ["--in-turns"]))
        self._workers[side].append(worker)
        return worker


def _pipe(stream: IO[AnyStr] | None) -> IO[AnyStr]:
    if stream is None:  # an internal truth: every worker is started with pipes
        raise AssertionError("no pipe")
    return stream
