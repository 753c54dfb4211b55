"""Processes that stay alive: base and head are loaded at the same time, and are measured in turns.

Each side has one or several processes, started at the first turn. The first process of each side starts alone, so that
its trials of algorithms are not disturbed and the others find kernels and choices in its cache. Processes of a side
take turns, and so do the pairs of processes of both sides. Turns of one process share its permanent properties (memory
addresses, chosen algorithms), so the gate also counts processes.

The reports of a process are checked from outside: its records grow by exactly one turn, and its turns last as long by
this process's clock.
"""

from __future__ import annotations

import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import IO, AnyStr, NamedTuple, Protocol

from fluxperf.errors import BuildError
from fluxperf.harness.gate import Side
from fluxperf.harness.records import Record, read_records
from fluxperf.lifeline import DONE, GRACE_S, PATIENCE_S, READY, leading, undisturbed

#: Seconds in which a process must end after the last turn, and lines of its messages that an error repeats.
_GRACE_S, _LINES = 60.0, 12

#: Characters of a line, and bytes at the end of all messages, that are checked.
_LINE, _END = 1 << 16, 1 << 16

#: A turn may last longer than the other side's turn and its own samples explain: by this share, and by this number of
#: seconds. There is no check before this number of turns.
_SLACK, _SLACK_S, _TURNS = 0.25, 0.1, 3


SIDES: tuple[Side, Side] = ("base", "head")


class Programs(Protocol):
    """Starts the processes of a side, and checks that the started program is the right one."""

    def begin(self, side: Side, options: Sequence[str]) -> Begun:
        """Command, environment and files of a new process of a side."""

    def checked(self, side: Side, begun: Begun, records: Sequence[Record]) -> None:
        """Refuses a process that imported other files, or records of another commit.

        Raises:
            BuildError: files or commit differ.
        """


class Begun(NamedTuple):
    """How a process is started: command, environment and folder; paths of its records, imports and messages."""

    command: list[str]
    environment: dict[str, str]
    folder: Path
    output: Path
    told: Path
    what: str


class Turn(NamedTuple):
    """Duration of a turn by the requesting process's clock, and the duration of its samples."""

    seconds: float
    told_s: float


class _Worker:
    """One process that takes turns."""

    def __init__(self, begun: Begun, patience_s: float) -> None:
        self.begun = begun
        self.records: list[Record] = []
        self.turns: list[Turn] = []
        self._rungs, self._patience_s = 0, patience_s
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `kill`)
        self._process = subprocess.Popen(
            leading(begun.command), cwd=begun.folder, env=begun.environment, text=True, errors="replace",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._messages, start_new_session=True,
        )  # fmt: skip

    def wait_for(self, word: str) -> None:
        """Reads the output of the process up to a word."""
        late = threading.Timer(self._patience_s, self._process.terminate)
        late.start()
        try:
            for line in iter(lambda: _pipe(self._process.stdout).readline(_LINE), ""):
                if line.strip() == word:
                    return
        finally:
            patient = late.is_alive()
            late.cancel()
        code = self._process.wait()
        raise self._error(
            f"expected a process that stays alive and prints {word!r}, "
            + (f"but it ended with {_ended(code)}" if patient else f"but it did not within {self._patience_s:g} s")
        )

    def turn(self, planted: int | None) -> list[Record]:
        """Records of one more turn."""
        orders, start_s = _pipe(self._process.stdin), time.monotonic()
        with suppress(BrokenPipeError):  # it ended: its messages say why
            orders.write("\n" if planted is None else f"{planted}\n")
            orders.flush()
        self.wait_for(DONE)
        seconds = time.monotonic() - start_s
        found = read_records(self.begun.output)
        if found.problems:
            raise BuildError(f"{self.begun.what}: {found.problems[0]} Run the gate again.")
        taken = found.records[len(self.records) :]
        if found.records[: len(self.records)] != self.records or len(taken) != (self._rungs or len(taken)):
            raise BuildError(
                f"{self.begun.what}: expected records that grow by one of each rung per turn, got others: another "
                "program writes to the file. Measure in new processes, and check what both revisions do."
            )
        told_s = sum(_told_s(record) for record in taken)
        if told_s > (1 + _SLACK) * seconds + _SLACK_S:
            raise BuildError(
                f"{self.begun.what}: expected samples that fill the turn of {seconds:.3g} s, got {told_s:.3g} s. "
                "The samples are from another clock, or were not measured. Check how the program measures."
            )
        self.records, self._rungs = found.records, len(taken)
        self.turns.append(Turn(seconds, told_s))
        return taken

    def end(self) -> None:
        """Ends the process after its last turn.

        Raises:
            BuildError: it ends with an error, or leaves processes behind.
        """
        with suppress(BrokenPipeError):
            _pipe(self._process.stdin).close()
        try:
            code = self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return
        if code:
            raise self._error(
                f"expected a process that ends after its last turn with exit code 0, but it ended with {_ended(code)}"
            )

    def kill(self) -> None:
        """Ends the process at once."""
        if self._process.poll() is None:
            self._process.terminate()  # its child processes end with it
            try:
                self._process.wait(2 * GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                _pipe(stream).close()
        self._messages.close()

    def _error(self, what: str) -> BuildError:
        size = self._messages.seek(0, 2)
        self._messages.seek(max(0, size - _END))
        last = "\n".join(self._messages.read().decode(errors="replace").rstrip().splitlines()[-_LINES:])
        said = f"Fix this error, or measure in new processes:\n{last}" if last.strip() else "It printed no message."
        return BuildError(f"{self.begun.what}: {what}. {said}")


def _ended(code: int) -> str:
    """An exit code with its signal and, if the signal may come from the system, the reason."""
    with suppress(ValueError):
        name = signal.Signals(-code if code < 0 else code - 128).name
        return f"{code} ({name}{': by somebody, or by the system for lack of memory' if name == 'SIGKILL' else ''})"
    return str(code)


def _told_s(record: Record) -> float:
    """Minimum seconds of the samples of a record and of those before. A sample may represent several generations."""
    return sum(sum(samples) for name in ("denoise", "warmup") for samples in record.times_s.get(name, ()))


def explains(base: Sequence[Turn], head: Sequence[Turn]) -> str:
    """Why the samples of the head do not explain the duration of its turns; "" if they do.

    If the samples of the head are not longer than those of the base, its turns are not longer either. If its samples
    are longer, its turns may be longer by the same factor. This detects invented or omitted samples, if they are a
    large part.
    """
    if min(len(base), len(head)) < _TURNS:
        return ""
    old, new = (Turn(*(median(column) for column in zip(*turns, strict=True))) for turns in (base, head))
    said = max(1.0, new.told_s / old.told_s) if old.told_s > 0 else 1.0
    if new.seconds <= (1 + _SLACK) * said * old.seconds + _SLACK_S:
        return ""
    return (
        f"expected turns of the head of about {said * old.seconds:.3g} s, from the base's turns and the head's own "
        f"samples, but they last {new.seconds:.3g} s. The samples do not represent the work of a turn. Check what "
        "the head does in a turn."
    )


class Alive:
    """Measures a side in the next of its processes.

    Args:
        programs: starts them.
        number: of processes of each side.
        patience_s: seconds before a start or a turn is aborted.
    """

    def __init__(self, programs: Programs, number: int = 1, patience_s: float = PATIENCE_S) -> None:
        self._programs, self._number, self._patience_s = programs, number, patience_s
        self._workers: dict[Side, list[_Worker]] = {"base": [], "head": []}
        self._turns: dict[Side, int] = {"base": 0, "head": 0}
        self._failed = False

    def __enter__(self) -> Alive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        workers = [(side, worker) for side, some in self._workers.items() for worker in some]
        with ExitStack() as ends:
            for _, worker in workers:
                ends.callback(worker.kill)
            if kind is None and not self._failed:  # errors at the end of the other processes would hide the first error
                for side, worker in workers:
                    worker.end()
                    self._programs.checked(side, worker.begun, worker.records)
                turns = [[turn for worker in self._workers[side] for turn in worker.turns] for side in SIDES]
                if why := explains(*turns):
                    raise BuildError(f"gate --alive: {why}")

    def measure(self, side: Side, planted: int | None = None) -> list[Record]:
        """Records of one turn, one for each rung.

        Args:
            side: side of the turn.
            planted: cycles of work added after each step; see `fluxperf.turns`.

        Raises:
            BuildError: a process does not start, or ended.
            RecordError: it wrote no record, or an incomplete one.
        """
        try:
            return self._measured(side, planted)
        except BaseException:
            self._failed = True
            raise

    def _measured(self, side: Side, planted: int | None) -> list[Record]:
        if not self._workers["base"]:
            self._start()
        workers, turn = self._workers[side], self._turns[side]
        self._turns[side] += 1
        # Pairs of processes change: when all have had a counted turn, the order of the head moves on by one. The first
        # turn is cold.
        place = turn if side == "base" else turn + max(0, turn - 1) // self._number
        return workers[place % self._number].turn(planted)

    def _start(self) -> None:
        for side in SIDES:
            self._begin(side).wait_for(READY)
        begun = [self._begin(side) for side in SIDES for _ in range(1, self._number)]
        for worker in begun:
            worker.wait_for(READY)

    def _begin(self, side: Side) -> _Worker:
        begun = self._programs.begin(side, ["--in-turns"])
        with undisturbed():  # a signal during the start would leave the process without an owner
            worker = _Worker(begun, self._patience_s)
            self._workers[side].append(worker)
        return worker


def _pipe(stream: IO[AnyStr] | None) -> IO[AnyStr]:
    if stream is None:  # an internal invariant: every worker is started with pipes
        raise AssertionError("no pipe")
    return stream
