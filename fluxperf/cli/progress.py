"""Shows the progress of a command: a bar with remaining time on a terminal, else a line every few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bar
from rich.text import Text

from fluxperf.cli.terminal import Console, say
from fluxperf.lifeline import is_led

#: Seconds after which a normally short command shows its progress, and seconds between updates on a terminal.
LATE_S = 2.0
_LOOK_S = 0.2

#: Seconds between lines. Logs stay short, a running job is visible, and short commands print no lines.
EVERY_S = 10.0

#: Seconds of reading after which its rate says when it will end.
_RATE_S = 1.0


class Progress:
    """A count toward a total, on stderr, shown within its ``with`` block.

    A child process of another command prints no lines, as the count of that command covers it.

    Args:
        what: name of the activity.
        total: total of the count; ``None`` if unknown.
        in_bytes: whether the count is in bytes.
        below: further bars on the same terminal.
    """

    def __init__(
        self, what: str, total: float | None = None, *, in_bytes: bool = False, below: Sequence[Progress] = ()
    ) -> None:
        self.what, self.total, self.done, self._bytes = what, total, 0.0, in_bytes
        self.console = Console(stderr=True)
        columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn()]
        columns += [DownloadColumn(), TransferSpeedColumn()] if in_bytes else [MofNCompleteColumn()]
        columns += [TextColumn("{task.fields[note]}"), TimeElapsedColumn(), TimeRemainingColumn()]
        self.bar = Bar(*columns, console=self.console)
        self._task = self.bar.add_task(what, total=total, note="")
        shown: list[RenderableType] = [self.bar, *(other.bar for other in below)]
        self._live = Live(Group(*shown), console=self.console, transient=True) if self.console.is_terminal else None
        self._start = self._said = time.monotonic()
        self._flows: float | None = None

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def advance(self, by: float = 1) -> None:
        """Adds to the count. Any thread may call it."""
        self._flows = time.monotonic() if self._flows is None else self._flows
        self.done += by
        self.bar.advance(self._task, by)
        self._line()

    def show(self, what: str = "", done: float | None = None, total: float | None = None, note: str = "") -> None:
        """Changes the activity, the count or the total. A new total restarts the clock."""
        if total is not None and total != self.total:
            self.total, self._start = total, time.monotonic()
        self.what, self.done = what or self.what, self.done if done is None else done
        self.bar.update(self._task, description=self.what, completed=self.done, total=self.total, note=note)
        self._line()

    def visible(self, wanted: bool) -> None:
        """Shows or hides the bar. Showing it restarts the count."""
        if wanted:
            self.done, self._start, self._flows = 0.0, time.monotonic(), None
            self.bar.reset(self._task, total=self.total)
        self.bar.update(self._task, visible=wanted)

    def _line(self) -> None:
        now = time.monotonic()
        if self._live is not None or is_led() or now - self._said < EVERY_S:
            return
        self._said = now
        say(self.in_words(now - self._start), err=True)

    def in_words(self, elapsed_s: float) -> str:
        """The progress as a line of a log: ``counting: 3 of 8, 12 s, about 20 s left``.

        Bytes flow only after libraries are imported and files are opened, so their rate is that since the first ones.
        """
        parts = [self._count()] if self.done or self.total else []
        parts.append(duration(elapsed_s))
        flowing_s = elapsed_s
        if self._bytes and self._flows is not None:
            flowing_s -= self._flows - self._start
        if self.total and 0 < self.done < self.total and (flowing_s >= _RATE_S or not self._bytes):
            parts.append(f"about {duration(flowing_s / self.done * (self.total - self.done))} left")
        return f"{self.what}: {', '.join(parts)}"

    def _count(self) -> str:
        unit, scale, digits = (" GB", 1e9, 1) if self._bytes else ("", 1.0, 0)
        if self._bytes and max(self.done, self.total or 0) < 1e9:
            unit, scale = " MB", 1e6
        total = f" of {self.total / scale:.{digits}f}" if self.total else ""
        return f"{self.done / scale:.{digits}f}{total}{unit}"


class Stages:
    """Shows the current stage of a normally short command, once it takes longer than two seconds.

    A terminal shows the stage and the elapsed seconds. Otherwise a line is printed at once and then every few seconds.
    The display ends with the block, before the command prints its result.

    Args:
        what: name of the first stage.
    """

    def __init__(self, what: str) -> None:
        self._what, self._over = what, threading.Event()
        self._thread = threading.Thread(target=self._show, name="stages", daemon=True)
        self._start = time.monotonic()

    def __enter__(self) -> Stages:
        if not is_led():  # otherwise the command that started this process shows the progress
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def next(self, what: str) -> None:
        """Starts the next stage."""
        self._what = what

    def _show(self) -> None:
        if self._over.wait(LATE_S):
            return
        console = Console(stderr=True)
        with suppress(OSError):  # the output may be closed
            if not console.is_terminal:
                say(self._words(), err=True)
                while not self._over.wait(EVERY_S):
                    say(self._words(), err=True)
                return
            with console.status(Text(self._words())) as status:  # a str would be parsed as markup
                while not self._over.wait(_LOOK_S):
                    status.update(Text(self._words()))

    def _words(self) -> str:
        return f"{self._what}: {duration(time.monotonic() - self._start)}"


def duration(seconds: float) -> str:
    """A duration as text: ``12 s``, ``3 min``, ``2 h 5 min``."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
