"""How processes end: this one cleanly after a signal, and its child processes together with it in any case."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple

#: Output of a process that stays alive: when it is ready, and after every turn.
READY, DONE = "fluxperf: ready", "fluxperf: done"

#: Environment variable with the process to follow.
PARENT = "FLUXPERF_PARENT"

#: ``PR_SET_PDEATHSIG`` of Linux's ``prctl(2)``: a signal to this process when its parent has ended.
_SIGNAL_AT_PARENTS_END = 1

_led = False

#: Signals by which a user, a shell or a shutdown ends a program.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Seconds in which the same request may come twice: a terminal signals the whole group, and the parent signals again.
_TWICE_S = 1.0

#: Seconds after which the exception is raised again, if it was raised where Python ignores exceptions.
_LOST_S = 0.01

#: Seconds after which a folder without a lock belongs to a killed process, not to one that is about to lock it.
_YOUNG_S = 10.0

#: Seconds that a group of processes has to end after it was asked to.
GRACE_S = 5.0

#: Exit code of a command that left processes behind.
LEFT = 125

#: Seconds that processes have to end after the one that started them.
_LAST_S = 2.0

#: Maximum seconds of a command, or of one turn of a process that stays alive.
PATIENCE_S = 3600.0

#: Runs a command in its own session and ends all of it with the process named first, or on request. On Linux also
#: processes that left the session: orphans become children of this process (``PR_SET_CHILD_SUBREAPER``).
_LEADER = """
import ctypes, os, signal, subprocess, sys, time
parent, grace, last, left, command = int(sys.argv[1]), *map(float, sys.argv[2:4]), int(sys.argv[4]), sys.argv[5:]
linux = sys.platform == "linux"
def stop(number, frame):
    raise SystemExit(128 + number)
def alone(until):
    while linux:
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            break
        if time.monotonic() >= until:
            return False
        time.sleep(0.01)
    return True
def children():
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                if int(file.read().rpartition(b")")[2].split()[1]) == os.getpid():
                    yield int(name)
        except OSError:
            pass
def end():
    while not alone(0):
        for child in children():
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
signal.signal(signal.SIGTERM, stop)
process = None
try:
    if linux:
        system = ctypes.CDLL(None)
        system.prctl(1, signal.SIGTERM)
        system.prctl(36, 1, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(128 + signal.SIGTERM)
    process = subprocess.Popen(command)
    code = process.wait()
    if not alone(time.monotonic() + last):
        end()
        if not code:
            print("it left processes behind, which were ended: what it starts must end with it.", file=sys.stderr)
            code = left
except OSError as error:
    sys.exit(f"{command[0]} does not start ({error.strerror}).")
except SystemExit:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    try:
        if process is not None:
            process.wait(grace)
    except subprocess.TimeoutExpired:
        if not linux:
            os.killpg(0, signal.SIGKILL)
    end()
    raise
sys.exit(code if code >= 0 else 128 - code)
"""


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP asked this process to end; ``number`` is the signal's. Ctrl-C raises `KeyboardInterrupt`."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _Undisturbed(NamedTuple):
    """Nested blocks that must not be interrupted, and the signal received meanwhile."""

    blocks: list[None]
    told: list[KeyboardInterrupt]


_UNDISTURBED = _Undisturbed([], [])


@contextmanager
def undisturbed() -> Iterator[None]:
    """Block that saves finished results: a signal that ends this process takes effect after the block.

    A second signal ends it at once.
    """
    _UNDISTURBED.blocks.append(None)
    try:
        yield
    finally:
        _UNDISTURBED.blocks.pop()
        if not _UNDISTURBED.blocks and _UNDISTURBED.told:
            told = _UNDISTURBED.told.pop()
            _UNDISTURBED.told.clear()
            raise told


@contextmanager
def stoppable() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP raise `Stopped`, as Ctrl-C raises its base class, so that open resources are closed.

    An ignored signal stays ignored. Code that saved results adds a note about them to the exception. If it is raised
    where Python ignores exceptions, as in ``__del__``, it is raised again a moment later.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    last = -_TWICE_S

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before < _TWICE_S:
            return
        told = KeyboardInterrupt() if number == signal.SIGINT else Stopped(number)
        if _UNDISTURBED.blocks and not _UNDISTURBED.told:
            _UNDISTURBED.told.append(told)
        else:
            raise told

    def lost(what: sys.UnraisableHookArgs) -> None:
        nonlocal last
        if isinstance(what.exc_value, KeyboardInterrupt):
            last = -_TWICE_S
            number = getattr(what.exc_value, "number", signal.SIGINT)
            # a real signal, which wakes a waiting thread
            threading.Timer(_LOST_S, signal.pthread_kill, [threading.main_thread().ident, number]).start()
        else:
            unraisable(what)

    unraisable, sys.unraisablehook = sys.unraisablehook, lost
    old = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in old.items():
        if handler is not signal.SIG_IGN:  # by nohup, or as a background job of a shell
            signal.signal(number, stop)
    try:
        yield
    finally:
        sys.unraisablehook = unraisable
        for number, handler in old.items():
            signal.signal(number, handler)


def led() -> dict[str, str]:
    """Environment of a process that is to end with this one."""
    return {PARENT: str(os.getpid())}


def follow() -> None:
    """Ends this process together with the one named in the environment, if there is one; only on Linux.

    Its own children do not follow: the variable is removed from the environment.
    """
    global _led  # of the process, like its environment
    parent = os.environ.pop(PARENT, None)
    if parent is not None:
        _led = True
        tie(int(parent))


def is_led() -> bool:
    """Whether another command started this process and shows the progress."""
    return _led


def tie(parent: int) -> None:
    """Ends this process with its parent, which is ``parent`` unless it has already ended; only on Linux."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_END, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before this call
        raise SystemExit(128 + signal.SIGTERM)


def call(
    command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None, patience_s: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end. Ends it and its child processes if this process ends or is asked to.

    Args:
        command: a program and its arguments. If it cannot be started, the exit code is 1 with a message; if it left
            processes behind, `LEFT`.
        folder: its working directory.
        environment: its variables; those of this process if not given.
        patience_s: maximum seconds.

    Returns:
        Its exit code, and both of its outputs.

    Raises:
        subprocess.TimeoutExpired: it takes longer.
    """
    with ExitStack() as ends:
        with undisturbed():  # a signal during the start would leave the process without an owner
            process = subprocess.Popen(
                leading(command), cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
            )  # fmt: skip
            ends.enter_context(process)
            ends.callback(process.terminate)  # no effect if it has ended
        said, _ = process.communicate(timeout=patience_s)
    return subprocess.CompletedProcess(list(command), process.returncode, said)


def leading(command: Sequence[str]) -> list[str]:
    """The command that runs a command in its own session, and ends its child processes with this process."""
    told = [str(os.getpid()), str(GRACE_S), str(_LAST_S), str(LEFT)]
    return [sys.executable, "-I", "-S", "-c", _LEADER, *told, *command]


@contextmanager
def scratch(prefix: str, beside: Path | None = None) -> Iterator[Path]:
    """A temporary folder that is removed at the end. A new one also removes folders left by killed processes.

    Args:
        prefix: prefix of the names of these folders, used for nothing else.
        beside: parent folder; the folder for temporary files if not given.
    """
    for left in (beside or Path(tempfile.gettempdir())).glob(f"{prefix}*"):
        with suppress(OSError):
            _remove_without_owner(left)
    made = tempfile.TemporaryDirectory(prefix=prefix, dir=beside)
    try:
        descriptor = os.open(made.name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with suppress(OSError):  # on file systems without locks
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            yield Path(made.name)
        finally:
            os.close(descriptor)
    finally:
        with undisturbed():  # a signal would leave a part of it
            made.cleanup()


def _remove_without_owner(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if found.st_uid == os.geteuid() and time.time() - found.st_mtime > _YOUNG_S:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
