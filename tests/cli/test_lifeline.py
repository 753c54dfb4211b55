"""How processes end: with the command that started them, even if it was killed; and commands on signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fluxperf import cli, lifeline
from fluxperf.harness.alive import Alive, Begun
from fluxperf.harness.forks import Forks
from fluxperf.harness.measure.processes import run_once

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends the child")

CHILD = (
    "import os, time; from fluxperf.lifeline import follow; follow(); print(os.getpid(), flush=True); time.sleep(600)"
)
PARENT = """
import os, subprocess, sys
from fluxperf.lifeline import led
subprocess.run([sys.executable, "-c", sys.argv[1]], env={**os.environ, **led()})
"""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of `lifeline`; it advances only when a test says so."""
    clock = SimpleNamespace(now=1000.0)
    told = SimpleNamespace(monotonic=lambda: clock.now, time=lambda: clock.now)
    monkeypatch.setattr(lifeline, "time", told)
    return clock


def test_a_child_ends_when_its_parent_is_killed():
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        assert _runs(child)
        parent.kill()
    while _runs(child):  # the kernel has sent the signal already
        time.sleep(0.01)


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_child_whose_parent_is_gone_ends_at_once(monkeypatch):
    monkeypatch.setenv(lifeline.PARENT, "1")
    monkeypatch.setattr(os, "getppid", lambda: 2)
    monkeypatch.setattr(lifeline.ctypes, "CDLL", lambda name: type("C", (), {"prctl": staticmethod(lambda *_: 0)}))
    with pytest.raises(SystemExit) as end:
        lifeline.follow()
    assert end.value.code == 128 + signal.SIGTERM
    assert lifeline.PARENT not in os.environ


def test_a_process_that_nobody_leads_goes_on(monkeypatch):
    monkeypatch.delenv(lifeline.PARENT, raising=False)
    lifeline.follow()


def test_measuring_processes_are_led(tmp_path):
    from fluxperf.harness.measure.processes import replicate

    program = f"import os, sys; open({str(tmp_path / 'seen')!r}, 'w').write(os.environ['{lifeline.PARENT}'])"
    replicate([sys.executable, "-c", program], 1, tmp_path)
    assert (tmp_path / "seen").read_text() == str(os.getpid())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_with_its_own_code_and_what_was_kept(monkeypatch, capsys, clock, number):
    def kept(*_, **__):
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        except KeyboardInterrupt as error:
            os.kill(os.getpid(), number)  # a terminal's process group gets the signal twice
            error.add_note("Kept 2 records.")
            raise

    monkeypatch.setattr("fluxperf.cli.phases.as_markdown", kept)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as end:
        cli.main(["phases", "--markdown"])
    assert end.value.code == 128 + number
    assert f"fluxperf: stopped by {number.name}. Kept 2 records." in capsys.readouterr().err
    assert signal.getsignal(number) == before


def test_a_signal_that_is_ignored_stays_so():
    """As ``nohup`` sets it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with lifeline.stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


GROUP = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
open(sys.argv[1], "w").write(f"{child.pid}")
time.sleep(600)
"""


def _read(told: Path) -> int:
    """Reads the child's id that `GROUP` writes."""
    while not (told.exists() and told.read_text()):
        time.sleep(0.01)
    return int(told.read_text())


SLEEPS = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]


def _in_forks(folder: Path) -> None:
    forks = Forks(cli.main, ["phases"], folder, [])
    with forks:
        forks.measure("base")


class _Turns:
    """Starts a process that takes no turns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, side, options):
        return Begun(SLEEPS, dict(os.environ), self.folder, self.folder / "o.jsonl", self.folder / "told", side)


def _in_turns(folder: Path) -> None:
    with Alive(_Turns(folder)) as alive:
        alive.measure("base")


@pytest.mark.parametrize(
    "start",
    [
        lambda folder: lifeline.call(SLEEPS, folder),
        lambda folder: run_once(SLEEPS, folder / "o.jsonl", folder),
        _in_turns,
        _in_forks,
    ],
    ids=["call", "process", "turns", "forks"],
)
def test_a_signal_while_a_process_starts_ends_it(tmp_path, monkeypatch, start):
    """Otherwise it would go on and write into a deleted folder."""
    started = []

    class Starting(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(subprocess, "Popen", Starting)
    with lifeline.stoppable(), pytest.raises(lifeline.Stopped):
        start(tmp_path)
    ((one, code),) = [(one, one.returncode) for one in started]
    one.kill()
    assert code is not None


class _Patient(subprocess.Popen):
    """A command whose time limit is over right after its start."""

    told: Path

    def communicate(self, input=None, timeout=None):
        assert timeout == 1
        _read(self.told)
        raise subprocess.TimeoutExpired(self.args, timeout)


@pytest.mark.parametrize("how", ["late", "stopped", "killed"])
def test_all_that_a_command_started_ends_with_it(tmp_path, monkeypatch, how):
    told = tmp_path / "told"
    command = [sys.executable, "-S", "-c", GROUP, str(told)]
    if how == "killed":
        program = (
            "import sys; from pathlib import Path; from fluxperf.lifeline import call; call(sys.argv[1:], Path.cwd())"
        )
        with subprocess.Popen([sys.executable, "-c", program, *command]) as parent:
            _read(told)
            parent.kill()
    elif how == "late":
        _Patient.told = told
        monkeypatch.setattr(lifeline.subprocess, "Popen", _Patient)
        with pytest.raises(subprocess.TimeoutExpired):
            lifeline.call(command, tmp_path, patience_s=1)
    else:

        def interrupt(*_) -> None:
            """Sends Ctrl-C as soon as the command has started."""
            if told.exists() and told.read_text():
                signal.setitimer(signal.ITIMER_REAL, 0)
                raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        try:
            with pytest.raises(KeyboardInterrupt):
                lifeline.call(command, tmp_path)
        finally:
            signal.signal(signal.SIGALRM, before)
    while _runs(int(told.read_text())):
        time.sleep(0.01)


#: Starts a process that leaves its group, its session and its parent, keeps the output open, and prints its id.
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open(sys.argv[1], "w") as file:
            file.write(str(os.getpid()))
        time.sleep(float(sys.argv[2]))
    os._exit(0)
os.wait()
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
sys.exit(int(sys.argv[3]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux knows who takes orphans")
@pytest.mark.parametrize(("lasts", "code", "expected"), [("60", "0", 125), ("60", "3", 3), ("0.2", "0", 0)])
def test_what_a_command_leaves_behind_is_ended_and_said(tmp_path, monkeypatch, lasts, code, expected):
    monkeypatch.setattr(lifeline, "_LAST_S", 0.1 if lasts == "60" else 20)
    told = tmp_path / "told"
    done = lifeline.call([sys.executable, "-S", "-c", DAEMON, str(told), lasts, code], tmp_path)
    assert done.returncode == expected
    assert ("left processes behind" in done.stdout) == (expected == lifeline.LEFT)
    assert not _runs(int(told.read_text()))


def test_a_command_says_its_code_and_what_it_printed(tmp_path):
    program = "import sys; print('out'); print('error', file=sys.stderr); sys.exit(3)"
    done = lifeline.call([sys.executable, "-c", program], tmp_path)
    assert (done.returncode, sorted(done.stdout.split())) == (3, ["error", "out"])
    done = lifeline.call(["/nowhere/program"], tmp_path)
    assert (done.returncode, done.stdout.strip()) == (1, "/nowhere/program does not start (No such file or directory).")


def test_what_a_killed_process_left_goes_and_what_another_uses_stays(tmp_path, clock):
    left, young, other = (tmp_path / name for name in ("made-left", "made-young", "kept"))
    for folder in (left, young, other):
        folder.mkdir()
        (folder / "file").write_text("")
        if folder != young:
            os.utime(folder, (1, 1))
    clock.now = young.stat().st_mtime + lifeline._YOUNG_S
    with lifeline.scratch("made-", tmp_path) as used:
        os.utime(used, (1, 1))
        with lifeline.scratch("made-", tmp_path) as own:
            assert {path.name for path in tmp_path.iterdir()} == {"made-young", "kept", used.name, own.name}
    assert {path.name for path in tmp_path.iterdir()} == {"made-young", "kept"}


def test_what_is_finished_is_kept_before_a_signal_ends_a_process(clock):
    """A second signal ends the process at once."""
    done = []

    def keep(insisting):
        with lifeline.undisturbed():
            with lifeline.undisturbed():
                signal.raise_signal(signal.SIGTERM)
            if insisting:
                clock.now += lifeline._TWICE_S
                signal.raise_signal(signal.SIGINT)
            done.append("kept")
        done.append("never")

    with lifeline.stoppable(), pytest.raises(lifeline.Stopped):
        keep(False)
    assert done == ["kept"]
    with lifeline.stoppable(), pytest.raises(KeyboardInterrupt):
        keep(True)
    assert done == ["kept"]
    with lifeline.stoppable(), lifeline.undisturbed():
        done.append("after")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_where_python_ignores_what_is_raised_is_not_lost(number, capsys):
    """Half of all work may run in ``__del__``, where arrays are released. A process that waits is woken up."""
    start = time.monotonic()

    class Array:
        def __del__(self):
            signal.raise_signal(number)

    def work():
        Array()
        time.sleep(60)

    hook = sys.unraisablehook
    with lifeline.stoppable(), pytest.raises(KeyboardInterrupt) as stopped:
        work()
    assert time.monotonic() - start < 60
    assert isinstance(stopped.value, lifeline.Stopped) == (number == signal.SIGTERM)
    assert sys.unraisablehook is hook
    assert capsys.readouterr().err == ""


def test_what_else_python_ignores_is_said_as_before(monkeypatch):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)

    class Array:
        def __del__(self):
            raise ValueError("x")

    with lifeline.stoppable():
        Array()
    assert [type(what.exc_value) for what in said] == [ValueError]


def test_a_folder_goes_whole_although_a_signal_comes_while_it_is_removed(tmp_path, monkeypatch):
    remove = lifeline.tempfile.TemporaryDirectory.cleanup

    def told(folder):
        signal.raise_signal(signal.SIGTERM)
        remove(folder)

    monkeypatch.setattr(lifeline.tempfile.TemporaryDirectory, "cleanup", told)
    with lifeline.stoppable(), pytest.raises(lifeline.Stopped), lifeline.scratch("made-", tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
