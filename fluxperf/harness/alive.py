"""Processes that stay alive: base and head have their weights in place at once, and are measured in turns.

Each side has one process or several, started when the first turn is asked for; the first of each side alone, so that
trials are not disturbed and the others find kernels and choices in its cache. Processes of a side take turns; so do the
couples of both sides. Turns of one process share what it has for life (where memory lies, what was chosen), so the gate
counts processes, too.

What a process says of itself is held to what can be seen from outside: its records, which only grow by one turn, and
how long its turns last by this process's clock.
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

#: Seconds that a process gets to end when no more turns come, and lines of its messages that an error repeats.
_GRACE_S, _LINES = 60.0, 12

#: Characters of a line, and bytes at the end of all messages, that are looked at.
_LINE, _END = 1 << 16, 1 << 16

#: A turn may last longer than the other side's and its own samples explain: by this share, and by so many seconds.
#: Before so many turns nothing is said.
_SLACK, _SLACK_S, _TURNS = 0.25, 0.1, 3


SIDES: tuple[Side, Side] = ("base", "head")


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


class Turn(NamedTuple):
    """How long a turn lasted by the clock of who asked for it, and how long its samples say that they were."""

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
        """Reads what it prints up to a word."""
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
            f"expected a process that stays alive and says {word!r}, "
            + (f"it ended with {_ended(code)}" if patient else f"it did not within {self._patience_s:g} s")
        )

    def turn(self, planted: int | None) -> list[Record]:
        """Records of one more turn."""
        orders, start_s = _pipe(self._process.stdin), time.monotonic()
        with suppress(BrokenPipeError):  # it ended: its words say why
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
                f"{self.begun.what}: expected records that grow by one of each rung in a turn, got others: somebody "
                "else writes into them. Measure in fresh processes, and look at what both revisions do."
            )
        told_s = sum(_told_s(record) for record in taken)
        if told_s > (1 + _SLACK) * seconds + _SLACK_S:
            raise BuildError(
                f"{self.begun.what}: expected samples of the turn, which lasted {seconds:.3g} s, got {told_s:.3g} s of "
                "them. They are of another clock, or were not measured."
            )
        self.records, self._rungs = found.records, len(taken)
        self.turns.append(Turn(seconds, told_s))
        return taken

    def end(self) -> None:
        """No more turns.

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
            raise self._error(f"expected a process that ends when no more turns come, it ended with {_ended(code)}")

    def kill(self) -> None:
        """Ends the process at once, whatever it is doing."""
        if self._process.poll() is None:
            self._process.terminate()  # it ends what it leads
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
        said = f"Correct what it says, or measure in fresh processes:\n{last}" if last.strip() else "It said nothing."
        return BuildError(f"{self.begun.what}: {what}. {said}")


def _ended(code: int) -> str:
    """An exit code, with the signal that it stands for and, where nobody need have sent it, why it comes."""
    with suppress(ValueError):
        name = signal.Signals(-code if code < 0 else code - 128).name
        return f"{code} ({name}{': by somebody, or by the system for lack of memory' if name == 'SIGKILL' else ''})"
    return str(code)


def _told_s(record: Record) -> float:
    """Seconds that the samples of a record and those before them say they took, at least: one may stand for several."""
    return sum(sum(samples) for name in ("denoise", "warmup") for samples in record.times_s.get(name, ()))


def explains(base: Sequence[Turn], head: Sequence[Turn]) -> str:
    """Why samples of the head do not explain how long its turns last; "" where they do.

    A head whose samples are no longer than those of the base has turns that are no longer; a head that says that it is
    slower may have such as are longer by as much. This shows samples that were made up or left out, if by a lot.
    """
    if min(len(base), len(head)) < _TURNS:
        return ""
    old, new = (Turn(*(median(column) for column in zip(*turns, strict=True))) for turns in (base, head))
    said = max(1.0, new.told_s / old.told_s) if old.told_s > 0 else 1.0
    if new.seconds <= (1 + _SLACK) * said * old.seconds + _SLACK_S:
        return ""
    return (
        f"expected turns of the head of about {said * old.seconds:.3g} s, by those of the base and by its own samples, "
        f"they last {new.seconds:.3g} s. Its samples do not tell what it does: look at what it does in a turn."
    )


class Alive:
    """Measures a side by the next of its processes.

    Args:
        programs: starts them.
        number: of processes of each side.
        patience_s: until a process that begins, or a turn, is given up.
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
            if kind is None and not self._failed:  # how the others end would hide the first failure
                for side, worker in workers:
                    worker.end()
                    self._programs.checked(side, worker.begun, worker.records)
                turns = [[turn for worker in self._workers[side] for turn in worker.turns] for side in SIDES]
                if why := explains(*turns):
                    raise BuildError(f"gate --alive: {why}")

    def measure(self, side: Side, planted: int | None = None) -> list[Record]:
        """Records of one turn, one for each rung.

        Args:
            side: whose turn it is.
            planted: cycles of work that follow each step; see `fluxperf.turns`.

        Raises:
            BuildError: a process does not begin, or ended.
            RecordError: it wrote no record, or half of one.
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
        # Couples change: where all have had a turn that counts, the head's order moves on by one. The first is cold.
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
        with undisturbed():  # a signal while it starts would leave it without one who ends it
            worker = _Worker(begun, self._patience_s)
            self._workers[side].append(worker)
        return worker


def _pipe(stream: IO[AnyStr] | None) -> IO[AnyStr]:
    if stream is None:  # an internal truth: every worker is started with pipes
        raise AssertionError("no pipe")
    return stream
